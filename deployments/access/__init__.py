"""Who may ask, and how much. Knows neither Ray nor HTTP.

- callers: From what a request shows to who asks: scopes and limits
- jwt: JWTs of an identity provider (OIDC), verified by PyJWT against its public keys
- keys: API keys at rest: their SHA-256 and what each may do, in a YAML or JSON file
- limits: How much one caller may ask for: texts a second and texts a day
- watched_file: A small file that others replace while we run: a mounted secret, a list of keys

http imports it. It imports pipeline, settings.
"""
