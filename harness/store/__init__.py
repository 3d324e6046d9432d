"""The store: the folder of records and artefacts (``--results``). One class owns every file name in it."""
