//! HTTP servers that misbehave, one behaviour each, switched while they run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a server does with a request for its page; others it answers with an empty 200, unless it hangs or closes.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// This page, as text.
    Page(String),
    /// These bytes, whatever they are: the whole answer.
    Raw(Vec<u8>),
    /// Takes the connection and never answers.
    Hang,
    /// A byte a second.
    Drip,
    /// So many bytes of a page without an end.
    Flood(u64),
    /// Ends the connection at once.
    Close,
}

/// A server on loopback.
pub struct BadServer {
    port: u16,
    behaviour: Arc<Mutex<Behaviour>>,
    served: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl BadServer {
    /// `path` is the page's.
    pub async fn start(path: &'static str, behaviour: Behaviour) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let served = Arc::new(AtomicUsize::new(0));
        let (current, count) = (behaviour.clone(), served.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let behaviour = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let count = count.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, path, behaviour, &count).await;
                });
            }
        });
        Ok(Self { port, behaviour, served, task })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// How many requests came for the page.
    pub fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }

    /// Nothing listens any more.
    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for BadServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    path: &str,
    behaviour: Behaviour,
    served: &AtomicUsize,
) -> std::io::Result<()> {
    let mut asked = vec![0; 4096];
    let n = stream.read(&mut asked).await?;
    let asked = String::from_utf8_lossy(asked.get(..n).unwrap_or_default()).into_owned();
    let head = |length: u64| {
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let whole = matches!(behaviour, Behaviour::Hang | Behaviour::Close);
    if asked.split(' ').nth(1) == Some(path) {
        served.fetch_add(1, Ordering::Relaxed);
    } else if !whole {
        return stream.write_all(head(0).as_bytes()).await;
    }
    match behaviour {
        Behaviour::Page(page) => {
            stream.write_all(head(page.len() as u64).as_bytes()).await?;
            stream.write_all(page.as_bytes()).await
        }
        Behaviour::Raw(bytes) => stream.write_all(&bytes).await,
        Behaviour::Hang => {
            tokio::time::sleep(Duration::from_secs(600)).await;
            Ok(())
        }
        Behaviour::Drip => {
            stream.write_all(head(600).as_bytes()).await?;
            for _ in 0..600 {
                stream.write_all(b"#").await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        }
        Behaviour::Flood(bytes) => {
            stream.write_all(head(bytes).as_bytes()).await?;
            let line = "# a line of a page that is longer than any page should be\n".repeat(1000);
            let mut sent = 0;
            while sent < bytes {
                stream.write_all(line.as_bytes()).await?;
                sent += line.len() as u64;
            }
            Ok(())
        }
        Behaviour::Close => Ok(()),
    }
}
