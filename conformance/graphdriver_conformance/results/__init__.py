"""Result files as something to read: one page of HTML, or a table of Markdown.

`runs` reads and checks the files, `grid` lays runs beside each other, `page` and `markdown` write.
"""
