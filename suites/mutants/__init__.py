"""A mutation test: how many small changes of the code do the tests notice?"""
