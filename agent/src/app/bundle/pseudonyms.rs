//! Other names for machines and addresses: the same one for the same thing in the whole bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

#[derive(Debug, Default)]
pub struct Pseudonyms {
    /// Names in small letters, the longest first, and what stands for them.
    hosts: Vec<(String, String)>,
    addresses: BTreeMap<IpAddr, String>,
    hardware: BTreeMap<String, String>,
}

impl Pseudonyms {
    /// A machine's name; what stands for it. The name without its domain is the same machine.
    pub fn host(&mut self, kind: &str, name: &str) -> String {
        let name = name.trim_matches('.').to_ascii_lowercase();
        let short = name.split('.').next().unwrap_or_default();
        if name.is_empty() || name == "localhost" || name.parse::<IpAddr>().is_ok() {
            return name;
        }
        let to = self.known(&name).or_else(|| self.known(short)).unwrap_or_else(|| {
            let others: BTreeSet<&str> = self.hosts.iter().map(|(_, to)| to.as_str()).collect();
            format!("{kind}-{}", others.len() + 1)
        });
        for form in [name.as_str(), short] {
            if self.known(form).is_none() {
                self.hosts.push((form.to_owned(), to.clone()));
            }
        }
        self.hosts.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        to
    }

    fn known(&self, name: &str) -> Option<String> {
        self.hosts.iter().find(|(known, _)| known == name).map(|(_, to)| to.clone())
    }

    pub fn replace(&mut self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, to) in &self.hosts {
            text = replace_name(&text, name, to);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (before, from) = rest.split_at(rest.find(in_word).unwrap_or(rest.len()));
            let (word, after) = from.split_at(from.find(|c| !in_word(c)).unwrap_or(from.len()));
            out.push_str(before);
            self.word(word, &mut out);
            rest = after;
        }
        out
    }

    fn word(&mut self, word: &str, out: &mut String) {
        let plain = word.trim_end_matches(['.', ':', '-']);
        if let Ok(address) = plain.split('%').next().unwrap_or_default().parse::<IpAddr>() {
            self.address(address, out);
            // A zone names an interface.
            out.push_str(plain.find('%').and_then(|at| plain.get(at..)).unwrap_or_default());
        } else if let Ok(socket) = plain.parse::<SocketAddr>() {
            self.address(socket.ip(), out);
            out.push(':');
            out.push_str(&socket.port().to_string());
        } else if is_hardware(plain) {
            let next = self.hardware.len() + 1;
            out.push_str(
                self.hardware.entry(plain.to_ascii_lowercase()).or_insert_with(|| format!("mac-{next}")),
            );
        } else {
            out.push_str(plain);
        }
        out.push_str(word.get(plain.len()..).unwrap_or_default());
    }

    fn address(&mut self, address: IpAddr, out: &mut String) {
        if address.is_loopback() || address.is_unspecified() {
            out.push_str(&address.to_string());
            return;
        }
        let next = self.addresses.len() + 1;
        out.push_str(self.addresses.entry(address).or_insert_with(|| format!("ip-{next}")));
    }
}

const fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '%' | '-' | '_')
}

fn is_hardware(word: &str) -> bool {
    let pairs = || word.split([':', '-']);
    pairs().count() == 6 && pairs().all(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// As a name of its own, in letters of any size.
fn replace_name(text: &str, name: &str, to: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (at, _) in lower.match_indices(name) {
        let end = at + name.len();
        let beside = [at.checked_sub(1), Some(end)];
        let part_of_more = beside
            .iter()
            .flatten()
            .any(|&place| lower.as_bytes().get(place).is_some_and(u8::is_ascii_alphanumeric));
        if !part_of_more {
            out.push_str(text.get(copied..at).unwrap_or_default());
            out.push_str(to);
            copied = end;
        }
    }
    out.push_str(text.get(copied..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        let mut names = Pseudonyms::default();
        assert_eq!(names.host("node", "gpu-01.example.org"), "node-1");
        assert_eq!(names.host("node", "GPU-01"), "node-1");
        assert_eq!(names.host("aggregator", "metrics.example.org"), "aggregator-2");
        assert_eq!(names.host("node", "localhost"), "localhost");
        assert_eq!(names.host("aggregator", "10.0.0.1"), "10.0.0.1");
        let mut check = |text: &str, expected: &str| assert_eq!(names.replace(text), expected, "{text}");
        check("gpu-01 Gpu-01.example.org: up, gpu-011 is another", "node-1 node-1: up, gpu-011 is another");
        check("metrics.example.org:9470", "aggregator-2:9470");
        check("10.0.0.1:80 10.0.0.2. 10.0.0.1/24", "ip-1:80 ip-2. ip-1/24");
        check(
            "[fe80::1]:9 fe80:0::1%eth0 ::1 127.0.0.1:9460 0.0.0.0",
            "[ip-3]:9 ip-3%eth0 ::1 127.0.0.1:9460 0.0.0.0",
        );
        check("aa:bb:cc:dd:ee:0f picket::agent 05:01:39 1.2.3", "mac-1 picket::agent 05:01:39 1.2.3");
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}", name in "[a-zäß.-]{1,8}") {
            let mut names = Pseudonyms::default();
            names.host("node", &name);
            names.replace(&text);
        }
    }
}
