"""What layers must look like, worked out without any driver.

A model of file trees (`tree`), the image-spec's rules on it (`layer`, `archive`), what is really on
disk (`observe`, `plant`) and how the two differ (`compare`, `changes`). Shares no code with
`graphdriver`.
"""
