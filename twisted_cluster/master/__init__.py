"""
The master: it accepts, hands off, supervises and reloads, and never imports
the app.
"""
