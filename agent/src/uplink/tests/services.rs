//! What else the stream carries: renewals, commands, reports, losses.

use picket_proto::v1::command::Command as What;
use picket_proto::v1::command_result::Result as Outcome;
use picket_proto::v1::downlink_message::Message as Down;

use super::aggregator::Behaviour;
use super::*;
use crate::identity::testing::Life;

/// Past two thirds of its life, and past the window of jitter.
const DUE: Life = (9000, 1000);

#[tokio::test]
async fn a_certificate_is_renewed_without_dropping_the_stream() {
    let aggregator = Aggregator::start(Behaviour { renew: Some((0, 86_400)), ..Behaviour::default() }).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", DUE, &[]);
    let node = Node::start_in(state, &aggregator.address, timing());
    eventually("a renewal", || (node.status.renewals() == 1).then_some(())).await;
    assert!(node.status.certificate_expiry().unwrap() > crate::identity::unix_now() + 80_000);
    for n in 1..=3 {
        node.append_simple(n).await;
    }
    node.pending(0).await;
    assert_eq!(aggregator.streams(), 1);
    assert_eq!(aggregator.look(0, |log| (log.batches.len(), log.renewals)), Some((3, 1)));

    aggregator.cut(0).await;
    eventually("another stream", || (aggregator.streams() == 2).then_some(())).await;
    let [before, after] =
        [0, 1].map(|stream| aggregator.look(stream, |log| log.certificate.clone()).unwrap());
    assert_ne!(before, after, "the new certificate is used for the next connection");
    node.stop().await;
}

#[tokio::test]
async fn a_refused_renewal_changes_nothing_and_is_tried_again() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let state = tempfile::tempdir().unwrap();
    aggregator.authority.enrolled(state.path(), "gpu-01", DUE, &[]);
    let read = |node: &Node| std::fs::read(node.state.path().join("identity/certificate.pem")).unwrap();
    let node = Node::start_in(state, &aggregator.address, timing());
    let before = read(&node);
    eventually("a refusal", || (node.status.renewal_failures() == 1).then_some(())).await;
    node.append_simple(1).await;
    node.pending(0).await;
    assert_eq!(read(&node), before);
    // The next attempt is minutes away: the aggregator is not pestered.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(aggregator.look(0, |log| log.renewals), Some(1));
    assert_eq!(aggregator.streams(), 1);
    node.stop().await;
}

#[tokio::test]
async fn an_operators_own_files_are_read_again_for_each_connection() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let state = tempfile::tempdir().unwrap();
    let paths = ["certificate", "key", "authorities"].map(|name| state.path().join(name));
    let write = |life: Life, whole: bool| {
        let issued = aggregator.authority.client("gpu-01", life);
        std::fs::write(&paths[0], &issued.chain_pem).unwrap();
        if whole {
            std::fs::write(&paths[1], &issued.key_pem).unwrap();
            std::fs::write(&paths[2], aggregator.authority.pem()).unwrap();
        }
    };
    write(DUE, true);
    let spool = Spool::in_memory(1 << 20, LIFE);
    let node = Node::start_with(state, &aggregator.address, timing(), spool, Some(paths.clone()));
    node.connected().await;
    // Half replaced: the old set goes on to serve.
    write(VALID, false);
    aggregator.cut(0).await;
    eventually("the second stream", || (aggregator.streams() == 2).then_some(())).await;
    write(VALID, true);
    node.connected().await;
    aggregator.cut(1).await;
    eventually("the third stream", || (aggregator.streams() == 3).then_some(())).await;
    let [one, two, three] =
        [0, 1, 2].map(|stream| aggregator.look(stream, |log| log.certificate.clone()).unwrap());
    assert!(one == two && two != three);
    assert_eq!(aggregator.look(0, |log| log.renewals), Some(0), "they are not ours to renew");
    node.stop().await;
}

fn get(id: u64) -> Down {
    let command = Some(What::ControlGet(v1::ControlGet { plugin: "mock".into() }));
    Down::Command(v1::Command { id, command })
}

#[tokio::test]
async fn commands_are_answered_whatever_happens() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let mut node = Node::start(&aggregator);
    node.connected().await;
    let answers = async |count: usize| {
        aggregator.until("answers", 0, |log| (log.results.len() >= count).then(|| log.results.clone())).await
    };

    aggregator.say(0, get(7)).await;
    let (command, answer) = node.commands.recv().await.unwrap();
    assert_eq!(command.id, 7);
    let result = v1::CommandResult { id: 0, result: Some(Outcome::Json("{}".into())) };
    answer.send(result).unwrap();
    assert_eq!(answers(1).await[0], v1::CommandResult { id: 7, result: Some(Outcome::Json("{}".into())) });

    // Dropped, never answered, unknown.
    aggregator.say(0, get(8)).await;
    drop(node.commands.recv().await.unwrap());
    assert!(matches!(&answers(2).await[1].result, Some(Outcome::Error(text)) if text.contains("dropped")));
    aggregator.say(0, get(9)).await;
    let held = node.commands.recv().await.unwrap();
    assert!(matches!(&answers(3).await[2].result, Some(Outcome::Error(text)) if text.contains("in time")));
    drop(held);
    aggregator.say(0, Down::Command(v1::Command { id: 10, command: None })).await;
    assert!(matches!(&answers(4).await[3].result, Some(Outcome::Error(text)) if text.contains("older")));

    // A flood: each one is answered, nothing piles up.
    for id in 100..200 {
        aggregator.say(0, get(id)).await;
    }
    let all = answers(104).await;
    let mut ids: Vec<u64> = all[4..].iter().map(|result| result.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (100..200).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test]
async fn plugins_are_reported_at_the_start_and_when_they_change() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let node = Node::start(&aggregator);
    let first = aggregator.until("a report", 0, |log| log.plugins.first().cloned()).await;
    assert!(first.plugins.is_empty());
    let state = v1::PluginState { id: "node".into(), state: "running".into(), ..Default::default() };
    node.plugins.send(vec![state.clone()]).unwrap();
    let second = aggregator.until("another report", 0, |log| log.plugins.get(1).cloned()).await;
    assert_eq!(second.plugins, std::slice::from_ref(&state));
    aggregator.cut(0).await;
    let again = aggregator.until("a report on the next stream", 1, |log| log.plugins.first().cloned()).await;
    assert_eq!(again.plugins, [state]);
    node.stop().await;
}

#[tokio::test]
async fn offers_come_down_and_what_is_wanted_goes_up_on_each_stream() {
    let aggregator = Aggregator::start(Behaviour::default()).await;
    let mut node = Node::start(&aggregator);
    node.connected().await;
    aggregator.until("the labels", 0, |log| log.hello.clone().filter(|hello| hello.labels.len() == 1)).await;
    let offers = v1::PluginOffers {
        offers: vec![v1::PluginOffer { plugin: "count".into(), attempt: 1, ..Default::default() }],
    };
    aggregator.say(0, Down::Offers(offers.clone())).await;
    eventually("the offer", || (*node.held.offers.borrow() == offers).then_some(())).await;
    let fetch = v1::PluginFetch { digest: "d".into(), offset: 7 };
    node.held.wanted.send_replace(Some(fetch.clone()));
    let state = v1::OfferState { plugin: "count".into(), state: "fetching".into(), ..Default::default() };
    node.held.states.send_replace(v1::OfferReport { offers: vec![state.clone()] });
    let permit = v1::PluginGrants { id: "count".into(), ..Default::default() };
    node.held.grants.send_replace(v1::GrantReport { plugins: vec![permit.clone()] });
    // What is wanted stays wanted: the next stream begins with it.
    for stream in 0..2 {
        aggregator.until("what is wanted", stream, |log| log.fetches.contains(&fetch).then_some(())).await;
        let said = |log: &super::aggregator::StreamLog| {
            let offers = log.offers.iter().any(|report| report.offers.contains(&state));
            let grants = log.grants.iter().any(|report| report.plugins.contains(&permit));
            (offers && grants).then_some(())
        };
        aggregator.until("the states", stream, said).await;
        if stream == 0 {
            aggregator.cut(0).await;
            eventually("another stream", || (aggregator.streams() == 2).then_some(())).await;
        }
    }
    let chunk = v1::PluginChunk { digest: "d".into(), offset: 7, content: vec![1], refused: String::new() };
    // More than anybody takes: they are dropped, and nothing waits for them.
    for _ in 0..9 {
        aggregator.say(1, Down::Chunk(chunk.clone())).await;
    }
    assert_eq!(node.held.chunks.recv().await, Some(chunk));
    node.append_simple(1).await;
    node.pending(0).await;
    node.stop().await;
}
