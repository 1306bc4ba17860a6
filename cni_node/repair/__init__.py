"""`pycni repair`: puts back the rules, routes and sysctls of what runs."""
