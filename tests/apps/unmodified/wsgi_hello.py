"""
A WSGI application, for C{twistd web --wsgi wsgi_hello.application}.
"""


def application(environ, start_response):
    answer = b"hello\n"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", headers)
    return [answer]
