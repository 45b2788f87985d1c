//! URL rules: which requests may be sent, and to which addresses a name may lead.
//!
//! A rule names scheme, host, port, path prefix and methods; all of them are checked on the request, and the address
//! once more after the name is resolved. A plugin must not reach the node's own services or a cloud's metadata by a
//! name that happens to point there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{SecretRule, UrlRule};

/// The rules of a grant.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    rules: Vec<UrlRule>,
}

/// What a rule says of the addresses of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressRule {
    /// Only addresses of the public internet.
    Public,
    /// Any but link-local ones, where clouds keep their metadata.
    Private,
    /// The one address that the rule names.
    Literal(IpAddr),
    /// Those of the network that the rule names; link-local ones not even then.
    Network(IpAddr, u8),
}

/// Why no rule allows a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefusal {
    #[error("no granted rule allows the scheme {0:?}")]
    Scheme(String),
    #[error("no granted rule allows the host {0:?}")]
    Host(String),
    #[error("no granted rule allows port {port} of {host}")]
    Port { host: String, port: u16 },
    #[error("no granted rule allows the path {path:?} of {host}")]
    Path { host: String, path: String },
    #[error("no granted rule allows the method {method} for {host}")]
    Method { host: String, method: String },
    #[error("no granted rule gives the secret {name:?} to {host}")]
    Secret { host: String, name: String },
}

/// A request, as far as rules look at it. `host` without brackets, in lower case; `path` without the query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub scheme: &'a str,
    pub host: &'a str,
    pub port: u16,
    pub path: &'a str,
    pub method: &'a str,
    pub secret: Option<&'a str>,
}

impl RuleSet {
    pub(crate) fn new(rules: Vec<UrlRule>) -> Result<Self, String> {
        for rule in &rules {
            check(rule)?;
        }
        Ok(Self { rules })
    }

    /// The first rule that allows the request.
    pub(crate) fn find(&self, asked: Asked<'_>) -> Result<(&UrlRule, AddressRule), UrlRefusal> {
        let host = || asked.host.to_owned();
        // Narrowed step by step, so that the refusal names the part that failed.
        let mut left: Vec<&UrlRule> = self.rules.iter().collect();
        let mut narrow = |keep: &dyn Fn(&UrlRule) -> bool, refusal: UrlRefusal| {
            left.retain(|r| keep(r));
            if left.is_empty() { Err(refusal) } else { Ok(()) }
        };
        narrow(&|r| scheme_fits(r, asked.scheme), UrlRefusal::Scheme(asked.scheme.to_owned()))?;
        narrow(&|r| host_fits(&r.host, asked.host), UrlRefusal::Host(host()))?;
        narrow(
            &|r| port_fits(r, asked.scheme, asked.port),
            UrlRefusal::Port { host: host(), port: asked.port },
        )?;
        narrow(
            &|r| path_fits(&r.path_prefix, asked.path),
            UrlRefusal::Path { host: host(), path: asked.path.chars().take(256).collect() },
        )?;
        narrow(
            &|r| r.methods.iter().any(|m| m == asked.method),
            UrlRefusal::Method { host: host(), method: asked.method.to_owned() },
        )?;
        if let Some(name) = asked.secret {
            narrow(
                &|r| r.secret.as_ref().is_some_and(|s| s.name == name && s.file.is_some()),
                UrlRefusal::Secret { host: host(), name: name.to_owned() },
            )?;
        }
        match left.first() {
            Some(rule) => Ok((rule, address_rule(rule))),
            None => Err(UrlRefusal::Host(host())),
        }
    }
}

impl AddressRule {
    /// Whether a resolved address may be connected to.
    pub fn allows(self, address: IpAddr) -> bool {
        let address = plain(address);
        match self {
            Self::Literal(literal) => plain(literal) == address,
            Self::Network(network, bits) => {
                in_network(network, bits, address) && !is_link_local(address) && !is_nowhere(address)
            }
            Self::Private => !is_link_local(address) && !is_nowhere(address),
            Self::Public => is_public(address),
        }
    }
}

fn address_rule(rule: &UrlRule) -> AddressRule {
    if let Some((network, bits)) = network(&rule.host) {
        return AddressRule::Network(network, bits);
    }
    match literal(&rule.host) {
        Some(address) => AddressRule::Literal(address),
        None if rule.allow_private => AddressRule::Private,
        None => AddressRule::Public,
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// `172.17.0.0/16`
fn network(host: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = host.split_once('/')?;
    let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, bits))
}

fn in_network(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    // The bits that differ, from the top of the address.
    let differ = match (network, plain(address)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(bits)
}

fn port_range(ports: &str) -> Option<(u16, u16)> {
    let (first, last) = ports.split_once('-')?;
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last && first > 0).then_some((first, last))
}

fn port_fits(rule: &UrlRule, scheme: &str, port: u16) -> bool {
    match &rule.ports {
        Some(ports) => port_range(ports).is_some_and(|(first, last)| (first..=last).contains(&port)),
        None => rule.port.unwrap_or_else(|| default_port(scheme)) == port,
    }
}

pub(crate) fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

fn check(rule: &UrlRule) -> Result<(), String> {
    let host = &rule.host;
    let stars = host.matches('*').count();
    if host.is_empty() || (host.contains(['/', '@', '?', '#', ' ']) && network(host).is_none()) {
        return Err(format!("url rule: the host {host:?} is neither a name nor an address"));
    }
    if stars > 0 && !(host == "*" || (stars == 1 && host.starts_with("*.") && host.len() > 2)) {
        return Err(format!("url rule: the host {host:?} may have a star as `*` or `*.suffix` only"));
    }
    if let Some(ports) = &rule.ports
        && (port_range(ports).is_none() || rule.port.is_some())
    {
        return Err(format!(
            "url rule for {host}: ports {ports:?}: a first and a last one (\"8000-8099\") in place of `port`"
        ));
    }
    if let Some(scheme) = &rule.scheme
        && !matches!(scheme.as_str(), "http" | "https")
    {
        return Err(format!("url rule for {host}: the scheme {scheme:?} is not http or https"));
    }
    if !rule.path_prefix.starts_with('/') {
        return Err(format!("url rule for {host}: path_prefix {:?} must begin with /", rule.path_prefix));
    }
    if rule.methods.is_empty() {
        return Err(format!("url rule for {host}: methods is empty"));
    }
    if let Some(method) =
        rule.methods.iter().find(|m| m.is_empty() || !m.chars().all(|c| c.is_ascii_uppercase()))
    {
        return Err(format!("url rule for {host}: the method {method:?} must be in capitals"));
    }
    if let Some(secret) = &rule.secret {
        check_secret(host, secret)?;
    }
    check_tls(rule)
}

fn check_tls(rule: &UrlRule) -> Result<(), String> {
    let host = &rule.host;
    let files = [
        ("ca", &rule.ca),
        ("client_certificate", &rule.client_certificate),
        ("client_key", &rule.client_key),
    ];
    let named = files.iter().filter_map(|(key, path)| Some((*key, path.as_ref()?)));
    for (key, path) in named.clone() {
        if !path.is_absolute() {
            return Err(format!("url rule for {host}: {key} {} must be an absolute path", path.display()));
        }
    }
    let first = named.map(|(key, _)| key).next().or(rule.server_name.as_ref().map(|_| "server_name"));
    if let (Some(key), Some("http")) = (first, rule.scheme.as_deref()) {
        return Err(format!("url rule for {host}: {key} is of https, and the scheme is http"));
    }
    if rule.client_certificate.is_some() != rule.client_key.is_some() {
        return Err(format!("url rule for {host}: client_certificate and client_key go together"));
    }
    if let Some(name) = &rule.server_name
        && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
    {
        return Err(format!("url rule for {host}: server_name {name:?} is no name for a certificate"));
    }
    Ok(())
}

pub(crate) fn check_secret(place: &str, secret: &SecretRule) -> Result<(), String> {
    if http::HeaderName::from_bytes(secret.header.as_bytes()).is_err() {
        return Err(format!("rule for {place}: the secret's header {:?} is no header name", secret.header));
    }
    if secret.file.as_ref().is_some_and(|f| !f.is_absolute()) {
        return Err(format!("rule for {place}: the secret's file must be an absolute path"));
    }
    Ok(())
}

fn scheme_fits(rule: &UrlRule, scheme: &str) -> bool {
    rule.scheme.as_deref().is_none_or(|s| s == scheme) && matches!(scheme, "http" | "https")
}

fn host_fits(rule: &str, host: &str) -> bool {
    if rule == "*" {
        return true;
    }
    if let Some(suffix) = rule.strip_prefix('*') {
        let host = host.to_ascii_lowercase();
        return host.len() > suffix.len() && host.ends_with(&suffix.to_ascii_lowercase());
    }
    if let Some((network, bits)) = network(rule) {
        return literal(host).is_some_and(|address| in_network(network, bits, address));
    }
    match (literal(rule), literal(host)) {
        (Some(a), Some(b)) => plain(a) == plain(b),
        _ => rule.eq_ignore_ascii_case(host),
    }
}

/// Whole segments. A path with an encoded dot or slash, or with dot segments, fits only where everything is allowed:
/// a server may read it as a path outside the prefix.
pub(crate) fn path_fits(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return true;
    }
    let lower = path.to_ascii_lowercase();
    if lower.contains("%2e") || lower.contains("%2f") || lower.contains("%5c") || lower.contains('\\') {
        return false;
    }
    if path.split('/').any(|s| s == "." || s == "..") {
        return false;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a granted rule covers a needed one.
pub(super) fn covers(grant: &UrlRule, need: &UrlRule) -> bool {
    // `*` in a need: the server stands in the settings, which the operator writes as he writes the grant.
    let any = need.host == "*";
    let scheme = any || grant.scheme.is_none() || grant.scheme == need.scheme;
    let host = any || grant.host == "*" || grant.host == need.host || {
        let inner = need.host.strip_prefix('*').map_or(need.host.clone(), |s| format!("x{s}"));
        host_fits(&grant.host, &inner) && (grant.host.starts_with('*') || !need.host.starts_with('*'))
    };
    let port = any
        || match (&need.ports, &grant.ports) {
            (None, None) => grant.port == need.port,
            (None, Some(_)) => {
                let scheme = need.scheme.as_deref().unwrap_or("http");
                port_fits(grant, scheme, need.port.unwrap_or_else(|| default_port(scheme)))
            }
            (Some(need), Some(grant)) => match (port_range(need), port_range(grant)) {
                (Some(need), Some(grant)) => grant.0 <= need.0 && need.1 <= grant.1,
                _ => false,
            },
            (Some(_), None) => false,
        };
    let path = any || path_fits(&grant.path_prefix, &need.path_prefix);
    let methods = need.methods.iter().all(|m| grant.methods.contains(m));
    let private = any || grant.allow_private || !need.allow_private;
    let secret = need
        .secret
        .as_ref()
        .is_none_or(|n| grant.secret.as_ref().is_some_and(|g| g.name == n.name && g.file.is_some()));
    scheme && host && port && path && methods && private && secret
}

/// IPv4 inside IPv6 (mapped, compatible, NAT64, 6to4) as IPv4: a rule must not be passed by by another way to write it.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let s = v6.segments();
    let tail = |a: u16, b: u16| IpAddr::V4(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b)));
    match s {
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => tail(a, b),
        [0, 0, 0, 0, 0, 0, a, b] if a != 0 => tail(a, b),
        [0x2002, a, b, ..] => tail(a, b),
        _ => address,
    }
}

fn is_nowhere(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.octets()[0] == 0 || a.is_broadcast() || a.is_multicast() || a.octets()[0] >= 240,
        IpAddr::V6(a) => a.is_unspecified() || a.is_multicast(),
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local(),
        // fd00:ec2::254 is a metadata address too.
        IpAddr::V6(a) => {
            (a.segments()[0] & 0xffc0) == 0xfe80 || a == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

fn is_public(address: IpAddr) -> bool {
    if is_nowhere(address) || is_link_local(address) {
        return false;
    }
    match address {
        IpAddr::V4(a) => {
            let [x, y, z, _] = a.octets();
            !(a.is_loopback()
                || a.is_private()
                || a.is_documentation()
                || (x == 100 && (64..128).contains(&y))
                || (x == 192 && y == 0 && z == 0)
                || (x == 198 && (18..20).contains(&y)))
        }
        // Global unicast is 2000::/3; documentation and Teredo lie within it.
        IpAddr::V6(a) => {
            let s = a.segments();
            (s[0] & 0xe000) == 0x2000 && !(s[0] == 0x2001 && (s[1] == 0xdb8 || s[1] == 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str) -> UrlRule {
        serde_json::from_value(serde_json::json!({ "host": host })).unwrap()
    }

    #[test]
    fn addresses() {
        for (address, public, private) in [
            ("1.1.1.1", true, true),
            ("127.0.0.1", false, true),
            ("10.0.0.1", false, true),
            ("192.168.1.1", false, true),
            ("172.16.0.1", false, true),
            ("100.64.0.1", false, true),
            ("169.254.169.254", false, false),
            ("0.0.0.0", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("::1", false, true),
            ("::", false, false),
            ("fe80::1", false, false),
            ("fd00::1", false, true),
            ("fd00:ec2::254", false, false),
            ("::ffff:127.0.0.1", false, true),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("2002:7f00:1::", false, true),
            ("2606:4700::1111", true, true),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(AddressRule::Public.allows(address), public, "{address}");
            assert_eq!(AddressRule::Private.allows(address), private, "{address}");
        }
        let literal = AddressRule::Literal("127.0.0.1".parse().unwrap());
        assert!(literal.allows("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!literal.allows("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn requests() {
        let set = RuleSet::new(vec![UrlRule {
            scheme: Some("http".to_owned()),
            port: Some(8000),
            path_prefix: "/metrics".to_owned(),
            ..rule("*.example.com")
        }])
        .unwrap();
        let ok = Asked {
            scheme: "http",
            host: "a.example.com",
            port: 8000,
            path: "/metrics",
            method: "GET",
            secret: None,
        };
        assert!(set.find(ok).is_ok());
        assert!(set.find(Asked { path: "/metrics/a", ..ok }).is_ok());
        for (bad, part) in [
            (Asked { scheme: "https", ..ok }, "scheme"),
            (Asked { scheme: "file", ..ok }, "scheme"),
            (Asked { host: "example.com", ..ok }, "host"),
            (Asked { host: "a.example.com.evil", ..ok }, "host"),
            (Asked { host: "aexample.com", ..ok }, "host"),
            (Asked { port: 80, ..ok }, "port"),
            (Asked { path: "/metrics2", ..ok }, "path"),
            (Asked { path: "/metrics/../x", ..ok }, "path"),
            (Asked { path: "/metrics/%2e%2e/x", ..ok }, "path"),
            (Asked { method: "POST", ..ok }, "method"),
            (Asked { secret: Some("x"), ..ok }, "secret"),
        ] {
            let refusal = set.find(bad).unwrap_err().to_string();
            assert!(refusal.contains(part), "{bad:?}: {refusal}");
        }
    }

    #[test]
    fn rules_that_make_no_sense() {
        for host in ["", "a*b", "*.", "**", "http://x", "a b", "user@x", "10.0.0.0/33", "x/8", "10.0.0.0/"] {
            assert!(RuleSet::new(vec![rule(host)]).is_err(), "{host:?}");
        }
        assert!(RuleSet::new(vec![UrlRule { methods: vec!["get".to_owned()], ..rule("x") }]).is_err());
        let tls = |more: serde_json::Value| {
            let mut value = serde_json::json!({ "host": "x" });
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            RuleSet::new(vec![serde_json::from_value(value).unwrap()]).map(drop)
        };
        assert_eq!(
            tls(
                serde_json::json!({ "ca": "/ca.pem", "client_certificate": "/c", "client_key": "/k", "server_name": "a.example" })
            ),
            Ok(())
        );
        for (bad, part) in [
            (serde_json::json!({ "ca": "ca.pem" }), "absolute"),
            (serde_json::json!({ "ca": "/ca.pem", "scheme": "http" }), "ca is of https"),
            (serde_json::json!({ "server_name": "a", "scheme": "http" }), "server_name is of https"),
            (serde_json::json!({ "client_certificate": "/c" }), "go together"),
            (serde_json::json!({ "client_key": "/k" }), "go together"),
            (serde_json::json!({ "server_name": "a b" }), "no name"),
        ] {
            let refusal = tls(bad.clone()).unwrap_err();
            assert!(refusal.contains(part), "{bad}: {refusal}");
        }
    }

    #[test]
    fn networks_and_ranges_of_ports() {
        let ports = |ports: &str| UrlRule { ports: Some(ports.to_owned()), ..rule("172.17.0.0/16") };
        let set = RuleSet::new(vec![ports("8000-8002")]).unwrap();
        let ok = Asked {
            scheme: "http",
            host: "172.17.3.4",
            port: 8002,
            path: "/metrics",
            method: "GET",
            secret: None,
        };
        let (_, addresses) = set.find(ok).unwrap();
        assert!(addresses.allows("172.17.255.255".parse().unwrap()));
        assert!(!addresses.allows("172.18.0.0".parse().unwrap()));
        for bad in [
            Asked { host: "172.18.0.1", ..ok },
            Asked { host: "::1", ..ok },
            // A name could lead anywhere later.
            Asked { host: "a.example", ..ok },
            Asked { port: 8003, ..ok },
            Asked { port: 7999, ..ok },
            Asked { port: 80, ..ok },
        ] {
            assert!(set.find(bad).is_err(), "{bad:?}");
        }
        let all = RuleSet::new(vec![rule("0.0.0.0/0")]).unwrap();
        let (_, addresses) = all.find(Asked { port: 80, host: "169.254.169.254", ..ok }).unwrap();
        assert!(!addresses.allows("169.254.169.254".parse().unwrap()));
        assert!(addresses.allows("1.1.1.1".parse().unwrap()));
        for bad in ["8000", "9-8", "0-1", "a-b", "1-70000", ""] {
            assert!(RuleSet::new(vec![ports(bad)]).is_err(), "{bad}");
        }
        assert!(RuleSet::new(vec![UrlRule { port: Some(1), ..ports("1-2") }]).is_err());
        assert!(
            covers(&ports("8000-9000"), &ports("8001-8002"))
                && !covers(&ports("8001-8002"), &ports("8000-9000"))
        );
        assert!(!covers(&rule("172.17.0.0/16"), &ports("80-81")));
    }

    #[test]
    fn coverage() {
        assert!(covers(&rule("*"), &rule("a")));
        assert!(covers(&rule("localhost"), &rule("*")));
        assert!(covers(&rule("*.example.com"), &rule("*.a.example.com")));
        assert!(!covers(&rule("a.example.com"), &rule("*.example.com")));
        assert!(!covers(&rule("a"), &rule("b")));
        assert!(!covers(&rule("a"), &UrlRule { methods: vec!["POST".to_owned()], ..rule("a") }));
        assert!(!covers(&rule("a"), &UrlRule { allow_private: true, ..rule("a") }));
    }
}
