"""Who may ask, and how much. Knows neither Ray nor HTTP.

watched_file  a file that is read again when its content changes
keys          API keys, hashed, in such a file
jwt           JWTs of an identity provider, checked against its public keys
limits        texts a second and a day
callers       from a key or a JWT to a caller with scopes and limits
"""
