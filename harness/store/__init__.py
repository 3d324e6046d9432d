"""The store: the folder of records and artefacts (``--results``). The class ``Store`` owns every file name in it."""
