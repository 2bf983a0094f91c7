"""Reports from run directories: loggers, progress, intervals, tables and plots.

Import the module that you need (``rlx.report.loggers``, ``rlx.report.tables``, ...); this package imports
none of them.
"""
