"""Report behind ``fastn-p2p bug-report``: one text for whoever is asked for help.

Layout: ``pseudonyms`` (names, keys and addresses become numbered words), ``log_excerpts`` (ends of the log files,
without what protocols write), ``report_text`` (all of it).
"""
