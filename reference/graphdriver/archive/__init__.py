"""Layer archives: tar streams as the image-spec defines them, written and read without `tarfile`.

`writer.pack` makes them of records, `reader.Reader` takes them apart, `unpack.unpack` applies them
to an overlay upper directory or through a view.
"""
