"""Custody of keys: the only room that imports cryptography or jwt, or draws randomness for keys, IVs and salts."""
