//! Enrolment, renewal, revocation, expiry.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use picket_aggregator::app::init;
use picket_aggregator::clock::Clock;
use picket_aggregator::identity::{NameRule, node_name};
use picket_proto::model::{NodeId, NodePattern};
use picket_proto::v1;
use picket_proto::v1::enrolment_client::EnrolmentClient;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use tonic::Code;

use crate::fixture::{Aggregator, Identity, csr, within};

#[tokio::test]
async fn init_keeps_its_secrets_and_never_overwrites() {
    let aggregator = Aggregator::start().await;
    let dir = &aggregator.config.state_dir;
    let mode = |name: &str| dir.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    for name in ["ca.key", "admin.token", "identity.db", "events.db", "ticket-keys"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let before = std::fs::read(dir.join("ca.pem")).unwrap();
    let error = init(&aggregator.config, &Clock::system()).unwrap_err().to_string();
    assert!(error.contains("Nothing was changed"), "{error}");
    // Without the admin's token the CA still is not overwritten.
    std::fs::remove_file(dir.join("admin.token")).unwrap();
    assert!(init(&aggregator.config, &Clock::system()).is_err());
    assert_eq!(std::fs::read(dir.join("ca.pem")).unwrap(), before);
}

#[tokio::test]
async fn a_node_enrols_and_streams_under_the_name_of_its_token() {
    let aggregator = Aggregator::start().await;
    let identity = aggregator.enrol("gpu-01").await;
    assert_eq!(node_name(&identity.chain[0], NameRule::Uri).unwrap().as_str(), "gpu-01");
    assert_eq!(identity.chain.len(), 2, "the leaf and the CA");
    let stream = aggregator.stream(Some(&identity)).await.unwrap();
    let answer = aggregator.call("GET", "/api/v1/nodes/gpu-01", Some(&aggregator.admin), None).await;
    assert_eq!(answer.json()["connected"], true, "{answer:?}");
    assert!(answer.json()["certificate_expires_ms"].is_i64());
    drop(stream);
}

#[tokio::test]
async fn without_a_certificate_nothing_but_enrolment() {
    let aggregator = Aggregator::start().await;
    let status = aggregator.stream(None).await.err().unwrap();
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("enrol"), "{status:?}");
}

#[tokio::test]
async fn tokens_work_once_for_one_node_until_they_end() {
    let aggregator = Aggregator::start().await;
    let refused = async |secret: &str, node: &str| match aggregator.enrol_with(secret, node).await {
        Ok(_) => panic!("{node} was enrolled"),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    let secret = aggregator.invite("a").await;
    let (code, text) = refused(&secret, "b").await;
    assert_eq!(code, Code::PermissionDenied, "{text}");
    aggregator.enrol_with(&secret, "a").await.unwrap();
    let (code, text) = refused(&secret, "a").await;
    assert!(code == Code::FailedPrecondition && text.contains("used"), "{text}");
    let (code, text) = refused("nobody-knows-me", "a").await;
    assert!(code == Code::Unauthenticated && text.contains("not known"), "{text}");

    let invite = |nodes: &str, uses, life| {
        aggregator.api.registry.create_enrolment(&NodePattern::new(nodes).unwrap(), uses, life, "t").unwrap()
    };
    let ended = invite("c", 1, Duration::ZERO);
    let (code, text) = refused(&ended.secret, "c").await;
    assert!(code == Code::FailedPrecondition && text.contains("expired"), "{text}");
    let withdrawn = invite("d", 1, Duration::from_secs(60));
    let path = format!("/api/v1/tokens/{}", withdrawn.id);
    assert_eq!(aggregator.call("DELETE", &path, Some(&aggregator.admin), None).await.status, 200);
    let (code, text) = refused(&withdrawn.secret, "d").await;
    assert!(code == Code::FailedPrecondition && text.contains("withdrawn"), "{text}");
}

#[tokio::test]
async fn a_token_for_a_batch_makes_so_many_new_nodes_of_its_names() {
    let aggregator = Aggregator::start().await;
    let make = async |body: &str| {
        let body = serde_json::from_str(body).unwrap();
        aggregator.call("POST", "/api/v1/tokens", Some(&aggregator.admin), Some(body)).await
    };
    for bad in [
        r#"{"nodes": "gpu-*"}"#,
        r#"{"node": "gpu-*"}"#,
        r#"{"nodes": "gpu-*", "count": 0}"#,
        r#"{"nodes": "gpu *", "count": 1}"#,
        r#"{"nodes": "gpu-*", "node": "gpu-1", "count": 1}"#,
    ] {
        assert_eq!(make(bad).await.status, 400, "{bad}");
    }
    let registry = &aggregator.api.registry;
    let pattern = NodePattern::new("gpu-*").unwrap();
    let token = registry.create_enrolment(&pattern, 3, Duration::from_secs(60), "t").unwrap();
    let refused = async |node: &str| match aggregator.enrol_with(&token.secret, node).await {
        Ok(_) => panic!("{node} was enrolled"),
        Err(status) => (status.code(), status.message().to_owned()),
    };
    let known = aggregator.invite("gpu-0").await;
    aggregator.enrol_with(&known, "gpu-0").await.unwrap();
    registry.revoke(&NodeId::new("gpu-9").unwrap(), "t").unwrap();
    for (node, what) in [
        ("cpu-1", "named gpu-*"),
        ("", "named gpu-*"),
        ("gpu-0", "known already"),
        ("gpu-9", "known already"),
    ] {
        let (code, text) = refused(node).await;
        assert!(code == Code::PermissionDenied && text.contains(what), "{node}: {text}");
    }
    // None of that was counted, and of more than are left three win.
    let uses = futures_util::future::join_all(
        (1..8).map(async |n| aggregator.enrol_with(&token.secret, &format!("gpu-{n}")).await.is_ok()),
    )
    .await;
    assert_eq!(uses.iter().filter(|won| **won).count(), 3);
    let (code, text) = refused("gpu-8").await;
    assert!(code == Code::FailedPrecondition && text.contains("used"), "{text}");
    let listed = registry.enrolment_tokens().unwrap();
    let listed = listed.iter().find(|listed| listed.id == token.id).unwrap();
    assert_eq!((listed.uses, listed.used, listed.node.as_str()), (3, 3, "gpu-*"));
}

#[tokio::test]
async fn of_racing_uses_of_a_token_one_wins() {
    let aggregator = Aggregator::start().await;
    for round in 0..5 {
        let node = format!("n{round}");
        let secret = aggregator.invite(&node).await;
        let uses =
            futures_util::future::join_all((0..8).map(|_| aggregator.enrol_with(&secret, &node))).await;
        assert_eq!(uses.iter().filter(|result| result.is_ok()).count(), 1, "round {round}");
    }
}

#[tokio::test]
async fn a_bad_request_does_not_spend_the_token() {
    let aggregator = Aggregator::start().await;
    let secret = aggregator.invite("a").await;
    let mut forged = csr(&KeyPair::generate().unwrap());
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let long = vec![0x30; 20 * 1024];
    for bad in [Vec::new(), vec![1, 2, 3], forged, long] {
        let channel = aggregator.channel(None).await.unwrap();
        let request = v1::EnrolRequest { secret: secret.clone(), node: "a".into(), csr: bad };
        let status = within("a refusal", EnrolmentClient::new(channel).enrol(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    aggregator.enrol_with(&secret, "a").await.unwrap();
}

#[tokio::test]
async fn a_certificate_is_renewed_on_its_stream() {
    let aggregator = Aggregator::start().await;
    let first = aggregator.enrol("a").await;
    let mut stream = aggregator.stream(Some(&first)).await.unwrap();
    let second = stream.renew().await.unwrap();
    assert_ne!(first.chain[0], second.chain[0]);
    drop(stream);
    drop(aggregator.stream(Some(&second)).await.unwrap());
}

#[tokio::test]
async fn a_stream_ends_with_the_newest_certificate_renewed_on_it() {
    let aggregator =
        Aggregator::with(|config| config.identity.certificate_life = Duration::from_secs(5)).await;
    let first = aggregator.enrol("a").await;
    let mut stream = aggregator.stream(Some(&first)).await.unwrap();
    let begun = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let second = stream.renew().await.unwrap();
    let reason = stream.end().await;
    assert_eq!(reason, "expired");
    assert!(
        begun.elapsed() > Duration::from_secs(6),
        "it ended with the first certificate: {:?}",
        begun.elapsed()
    );
    for identity in [&first, &second] {
        let status = aggregator.stream(Some(identity)).await.err().unwrap();
        assert!(format!("{status:?}").to_lowercase().contains("expired"), "{status:?}");
    }
}

#[tokio::test]
async fn revocation_cuts_at_once_and_for_good() {
    let aggregator = Aggregator::start().await;
    let identity = aggregator.enrol("a").await;
    let mut stream = aggregator.stream(Some(&identity)).await.unwrap();
    let renewed = stream.renew().await.unwrap();
    let other = aggregator.enrol("b").await;
    let bystander = aggregator.stream(Some(&other)).await.unwrap();
    let open = aggregator.invite("a").await;

    let answer = aggregator.call("POST", "/api/v1/nodes/a/revoke", Some(&aggregator.admin), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(stream.end().await, "revoked");
    let refused = async |aggregator: &Aggregator, identity: &Identity| {
        let status = aggregator.stream(Some(identity)).await.err().expect("a revoked node streams");
        assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
        assert!(status.message().contains("revoked"), "{status:?}");
    };
    refused(&aggregator, &identity).await;
    refused(&aggregator, &renewed).await;
    assert!(aggregator.enrol_with(&open, "a").await.is_err(), "a token of before the revocation");
    drop(bystander);
    drop(aggregator.stream(Some(&other)).await.unwrap());

    let aggregator = aggregator.restart().await;
    refused(&aggregator, &identity).await;
    refused(&aggregator, &renewed).await;
    // What an admin does afterwards lets it in, the old certificates stay out.
    let again = aggregator.enrol("a").await;
    drop(aggregator.stream(Some(&again)).await.unwrap());
    refused(&aggregator, &renewed).await;
    let aggregator = aggregator.restart().await;
    refused(&aggregator, &identity).await;
    drop(aggregator.stream(Some(&again)).await.unwrap());
}

#[tokio::test]
async fn revoking_what_is_not_there_says_so() {
    let aggregator = Aggregator::start().await;
    let answer = aggregator.call("POST", "/api/v1/nodes/nobody/revoke", Some(&aggregator.admin), None).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[tokio::test]
async fn certificates_of_others_do_not_get_in() {
    let aggregator = Aggregator::start().await;
    let stranger = Aggregator::start().await;
    let foreign = stranger.enrol("a").await;
    assert!(aggregator.stream(Some(&foreign)).await.is_err(), "another CA");

    // Signed by the right CA, and not a node's: the server's own names and usages.
    let dir = &aggregator.config.state_dir;
    let ca_key = KeyPair::from_pem(&std::fs::read_to_string(dir.join("ca.key")).unwrap()).unwrap();
    let issuer =
        Issuer::from_ca_cert_pem(&std::fs::read_to_string(dir.join("ca.pem")).unwrap(), ca_key).unwrap();
    let uri = |name: &str| SanType::URI(format!("picket://node/{name}").try_into().unwrap());
    for (what, names, usage, wanted) in [
        ("a server's", vec![uri("a")], rcgen::ExtendedKeyUsagePurpose::ServerAuth, Code::Unavailable),
        ("no name", vec![], rcgen::ExtendedKeyUsagePurpose::ClientAuth, Code::Unauthenticated),
        (
            "two names",
            vec![uri("a"), uri("b")],
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            Code::Unauthenticated,
        ),
        ("a bad name", vec![uri("a/b")], rcgen::ExtendedKeyUsagePurpose::ClientAuth, Code::Unauthenticated),
        (
            "no issue number",
            vec![uri("a")],
            rcgen::ExtendedKeyUsagePurpose::ClientAuth,
            Code::Unauthenticated,
        ),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        params.serial_number =
            Some(if what == "no issue number" { 7_u64.into() } else { vec![1; 16].into() });
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let identity = Identity::new(vec![certificate.der().to_vec()], &key);
        let status =
            aggregator.stream(Some(&identity)).await.err().unwrap_or_else(|| panic!("{what} streams"));
        assert!(status.code() == wanted || wanted == Code::Unavailable, "{what}: {status:?}");
    }
}
