"""Result files and their reports: one page of HTML, or a table of Markdown.

`result_file` reads and checks the files, `grid` compares runs, `page` and `markdown` write.
"""
