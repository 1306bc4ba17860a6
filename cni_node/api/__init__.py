"""A JSON API as a client sees it: calls, streams of lines, credentials, and one collection listed and followed."""
