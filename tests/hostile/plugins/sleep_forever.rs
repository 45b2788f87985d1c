//! Waits for a server that takes the connection and never answers.
//!
//! must: exported hostile_value
//! must: stopped PKT-0062
//! argument: http://127.0.0.1:{silent}/
//! grant: capability = "http", urls = [{ scheme = "http", host = "127.0.0.1", port = {silent}, allow_private = true }]

use hostile::{Hostile, http, plugin};

struct Plugin;

impl Hostile for Plugin {
    fn collect() -> Result<(), String> {
        hostile::value(1.0)?;
        let request = http::Request {
            method: "GET".to_owned(),
            url: hostile::argument(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: None,
            secret: None,
        };
        http::send(&request).map(drop).map_err(|e| format!("{e:?}"))
    }
}

plugin!(Plugin);
