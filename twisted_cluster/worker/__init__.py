"""
The worker: it loads the app and serves the sockets that the master hands it.
"""
