"""Layer archives: tar streams as the image-spec defines them, written and read without `tarfile`.

Only the format: `writer.pack` creates archives from records, `stream` returns them as streams,
`reader.Reader` reads their members. `graphdriver.apply` writes the members to disk.
"""
