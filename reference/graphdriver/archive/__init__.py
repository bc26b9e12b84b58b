"""Layer archives: tar streams as the image-spec defines them, written and read without `tarfile`.

The format and nothing else: `writer.pack` makes archives of records, `stream` hands them out,
`reader.Reader` reads their members. `graphdriver.apply` decides what becomes of these on disk.
"""
