//! `GET /loki/api/v1/tail`: lines as they come, over a WebSocket.
//!
//! First what matched since `start`, then what becomes durable, in that order. A reader that is too slow isn't waited for with
//! memory: it reads the store itself, and is told what it missed when that has been packed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use super::super::App;
use super::LokiError;
use super::answer::Lines;
use super::params::Params;
use crate::logs::logql::{
    self,
    ast::LogExpr,
    pipeline::{Extracted, Pipeline},
};
use crate::logs::query::{Direction, LogQuery, StreamLines};
use crate::logs::{Follower, TailNext};
use crate::transport::PeerInfo;

/// Lines and bytes of one message.
const MAX_LINES: usize = 1000;
const MAX_BYTES: usize = 1 << 20;
/// Pieces looked at before others get their turn.
const MAX_PIECES: usize = 64;
/// A reader that takes nothing for this long is given up; a silent one is asked whether it is there.
const STALL: Duration = Duration::from_secs(20);
const PING: Duration = Duration::from_secs(20);

pub async fn tail(
    State(app): State<Arc<App>>,
    uri: Uri,
    peer: Option<Extension<PeerInfo>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, LokiError> {
    let params = Params::of(&uri)?;
    let log = logql::parse_log(params.query()?)?;
    let now_ns = app.clock.now_ms().saturating_mul(1_000_000);
    let (start, _) = params.range(now_ns)?;
    let limit = params.limit()?;
    params.check_delay()?;
    let Ok(permit) = Arc::clone(&app.logs.tails).try_acquire_owned() else {
        return Err(LokiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "max concurrent tail requests limit exceeded",
        ));
    };
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => return Ok(rejection.into_response()),
    };
    let history =
        LogQuery { log: log.clone(), from_ns: start, to_ns: i64::MAX, direction: Direction::Backward, limit };
    let tail = Tail { app, log: Arc::new(log), _permit: permit, _peer: peer.map(|Extension(peer)| peer) };
    Ok(upgrade.max_message_size(16 << 10).on_upgrade(move |socket| tail.run(socket, history)))
}

struct Tail {
    app: Arc<App>,
    log: Arc<LogExpr>,
    _permit: OwnedSemaphorePermit,
    /// Keeps the connection's place: it counts for as long as the tail lasts.
    _peer: Option<PeerInfo>,
}

impl Tail {
    async fn run(self, mut socket: WebSocket, history: LogQuery) {
        metrics::gauge!("picket_aggregator_log_tails").increment(1.0);
        let reason = self.serve(&mut socket, history).await;
        metrics::gauge!("picket_aggregator_log_tails").decrement(1.0);
        if let Some((code, reason)) = reason {
            let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
            let _ = tokio::time::timeout(STALL, socket.send(close)).await;
        }
    }

    /// Serves until the end; `Some` is to be said with it.
    async fn serve(&self, socket: &mut WebSocket, history: LogQuery) -> Option<(u16, String)> {
        let mut grown = self.app.logs.store.grown();
        let found = self.app.logs.ask("tail", move |store, budget| store.lines(&history, budget)).await;
        let mut found = match found {
            Ok(found) => found,
            Err(error) => return Some((close_code::ERROR, error.text.trim().to_owned())),
        };
        found.streams.iter_mut().for_each(|stream| stream.lines.reverse());
        if !found.streams.is_empty() && !say(socket, &found.streams, 0).await {
            return None;
        }
        let mut follower = self.app.logs.store.follow(found.end);
        let mut ping = tokio::time::interval(PING);
        ping.reset();
        loop {
            grown.borrow_and_update();
            let log = Arc::clone(&self.log);
            let read = tokio::task::spawn_blocking(move || {
                let news = gather(&mut follower, &log);
                (follower, news)
            });
            let Ok((back, news)) = read.await else {
                return Some((close_code::ERROR, "the tail failed".to_owned()));
            };
            follower = back;
            if (!news.streams.is_empty() || news.missed > 0) && !say(socket, &news.streams, news.missed).await
            {
                return None;
            }
            if news.more {
                continue;
            }
            tokio::select! {
                () = self.app.logs.stopping.cancelled() => {
                    return Some((close_code::AWAY, "the aggregator is stopping".to_owned()));
                }
                changed = grown.changed() => if changed.is_err() { return None },
                heard = socket.recv() => match heard {
                    // What a reader says is of no interest, that it is there is.
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                    Some(Ok(_)) => {}
                },
                _ = ping.tick() => {
                    let asked = tokio::time::timeout(STALL, socket.send(Message::Ping(Bytes::new()))).await;
                    if !matches!(asked, Ok(Ok(()))) {
                        return None;
                    }
                }
            }
        }
    }
}

/// What is new.
#[derive(Default)]
struct News {
    streams: Vec<StreamLines>,
    /// Segments that were packed or dropped before they were read.
    missed: u64,
    /// There may be more at once.
    more: bool,
}

fn gather(follower: &mut Follower, log: &LogExpr) -> News {
    let pipeline = Pipeline::new(&log.stages);
    let mut extracted = Extracted::default();
    let mut news = News::default();
    let mut numbers: HashMap<Vec<(String, String)>, usize> = HashMap::new();
    let (mut lines, mut bytes) = (0, 0);
    for _ in 0..MAX_PIECES {
        if lines >= MAX_LINES || bytes >= MAX_BYTES {
            break;
        }
        let piece = match follower.read() {
            TailNext::Piece(piece) => piece,
            TailNext::Packed(_) => {
                follower.skip_segment();
                news.missed += 1;
                continue;
            }
            TailNext::Gone { segments } => {
                news.missed += segments;
                continue;
            }
            TailNext::End => return news,
        };
        for (labels, list) in piece.streams {
            if !log.selector.matches(&labels) {
                continue;
            }
            for (time, line) in list {
                if !pipeline.run(&labels, &line, &mut extracted) {
                    continue;
                }
                let all = extracted.labels(&labels);
                let at = match numbers.get(&all) {
                    Some(at) => *at,
                    None => {
                        news.streams.push(StreamLines { labels: Arc::new(all.clone()), lines: Vec::new() });
                        numbers.insert(all, news.streams.len() - 1);
                        news.streams.len() - 1
                    }
                };
                lines += 1;
                bytes += line.len();
                if let Some(stream) = news.streams.get_mut(at) {
                    stream.lines.push((time, line.into()));
                }
            }
        }
    }
    news.more = true;
    news
}

/// `false`: the reader is gone, or takes nothing.
async fn say(socket: &mut WebSocket, streams: &[StreamLines], missed: u64) -> bool {
    let streams: Vec<Lines<'_>> = streams.iter().map(Lines).collect();
    let mut message = json!({ "streams": streams });
    if missed > 0
        && let Some(members) = message.as_object_mut()
    {
        // How many lines it were isn't known.
        let labels = json!({ "missed_segments": missed.to_string() });
        members.insert("dropped_entries".to_owned(), json!([{ "labels": labels, "timestamp": now_text() }]));
    }
    let sent = tokio::time::timeout(STALL, socket.send(Message::Text(message.to_string().into()))).await;
    matches!(sent, Ok(Ok(())))
}

fn now_text() -> String {
    crate::clock::Clock::system().now_ms().saturating_mul(1_000_000).to_string()
}
