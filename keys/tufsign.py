"""Turns private keys of the key store into the signers that python-tuf takes."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from securesystemslib.signer import CryptoSigner


def tuf_signer(private: MLDSA65PrivateKey | Ed25519PrivateKey) -> CryptoSigner:
    """A signer of scheme `ml-dsa-65/1` or `ed25519`; ML-DSA signs under the TUF domain prefix."""
    return CryptoSigner(private)
