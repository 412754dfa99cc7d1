"""Documents as their programs left them, for a person to look at: in a terminal, and as one page of HTML.

`select` draws documents from a run, `view` says what there is to see of each, `terminal` and `page` show it.
"""
