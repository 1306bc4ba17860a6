"""The warm service: it has the plugins imported, and runs the calls that their executables hand over."""
