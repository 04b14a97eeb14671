"""Every port: typing.Protocol classes that state guarantees; the only async signatures in `protocols`."""
