"""Student and teacher networks. `catalog` lists them and can be read without torch."""
