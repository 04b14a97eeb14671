"""TLS keys: the pin of a certificate (SHA-256 of its SubjectPublicKeyInfo), and a self-signed certificate to show."""

from datetime import datetime, timedelta
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAYS = 825


def spki_sha256(certificate: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo of a DER certificate; empty for anything that is not one."""
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except ValueError:
        return b""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(spki).digest()


def self_signed(host: str, now: datetime) -> tuple[bytes, bytes]:
    """PEM private key and PEM certificate for a host; peers pin the key, so nobody else needs to sign it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


def pin_of_pem(certificate: bytes) -> bytes:
    """The pin of a PEM certificate; ValueError where it is none."""
    return spki_sha256(x509.load_pem_x509_certificate(certificate).public_bytes(serialization.Encoding.DER))


def end_of_pem(certificate: bytes) -> datetime:
    """When a PEM certificate ends; ValueError where it is none."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc
