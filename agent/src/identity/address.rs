//! `host:port`, as it stands in the config and in a token.

use std::fmt;

use rustls_pki_types::ServerName;

/// Where an aggregator listens. The host is also the name that its certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "the aggregator's address {text:?} has no port: write it as host:port, for example \"{text}:9470\""
    )]
    NoPort { text: String },
    #[error("the aggregator's address {text:?} has a port that is no number from 1 to 65535")]
    Port { text: String },
    #[error(
        "the aggregator's address {text:?} has a host that is neither a DNS name nor an IP address (IPv6: \"[::1]:9470\")"
    )]
    Host { text: String },
    #[error(
        "the aggregator's address {text:?} is a URL: leave out the scheme and the path, host:port is all"
    )]
    Url { text: String },
}

impl Address {
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name that the peer's certificate has to carry.
    pub(crate) fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }
}

impl std::str::FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let shown = || text.chars().take(300).collect::<String>();
        if text.contains('/') {
            return Err(AddressError::Url { text: shown() });
        }
        let bracketed = text.starts_with('[');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && bracketed == host.ends_with(']') => (host, port),
            _ => return Err(AddressError::NoPort { text: shown() }),
        };
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| AddressError::Port { text: shown() })?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(AddressError::Host { text: shown() }),
            None if host.contains(':') => return Err(AddressError::Host { text: shown() }),
            None => host,
        };
        let address = Self { host: host.to_owned(), port };
        match address.server_name() {
            Some(_) => Ok(address),
            None => Err(AddressError::Host { text: shown() }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let got = text.parse::<Address>();
            match expected {
                Some((host, port)) => {
                    let got = got.unwrap_or_else(|e| panic!("{text:?}: {e}"));
                    assert_eq!((got.host(), got.port()), (host, port));
                    assert_eq!(got.to_string(), text);
                }
                None => assert!(got.is_err(), "{text:?} gave {got:?}"),
            }
        };
        check("aggregator.example:9470", Some(("aggregator.example", 9470)));
        check("10.0.0.1:1", Some(("10.0.0.1", 1)));
        check("[::1]:9470", Some(("::1", 9470)));
        for bad in [
            "",
            "host",
            ":1",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "::1:9470",
            "[::1]",
            "[host]:1",
            "https://h:1",
            "ho st:1",
            "h\u{0}:1",
        ] {
            check(bad, None);
        }
    }
}
