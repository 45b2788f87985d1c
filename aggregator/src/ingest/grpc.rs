//! The service as tower sees it: what the generated server does, with buffers that fit ten thousand idle streams.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use picket_proto::v1::{DownlinkMessage, UplinkMessage};
use tonic::codec::{BufferSettings, Codec};
use tonic::codegen::{Body, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::{Session, UplinkService};

const METHOD: &str = "/picket.v1.Uplink/Stream";
/// What an idle stream keeps for messages each way; both grow on demand.
const BUFFER: usize = 256;
const YIELD: usize = 16 << 10;

/// The tower service of [`UplinkService`].
#[derive(Clone)]
pub struct UplinkGrpc {
    service: UplinkService,
}

impl UplinkGrpc {
    pub(super) fn new(service: UplinkService) -> Self {
        Self { service }
    }
}

impl NamedService for UplinkGrpc {
    const NAME: &'static str = "picket.v1.Uplink";
}

impl<B> tower_service::Service<http::Request<B>> for UplinkGrpc
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != METHOD {
            return Box::pin(std::future::ready(Ok(
                tonic::Status::unimplemented("no such method").into_http()
            )));
        }
        let method = Method(self.service.clone());
        Box::pin(async move {
            let limit = method.0.inner.options.max_message_bytes;
            let mut grpc = Grpc::new(SmallBuffers).max_decoding_message_size(limit);
            Ok(grpc.streaming(method, request).await)
        })
    }
}

struct Method(UplinkService);

impl StreamingService<UplinkMessage> for Method {
    type Response = DownlinkMessage;
    type ResponseStream = Session;
    type Future = std::future::Ready<Result<tonic::Response<Session>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<UplinkMessage>>) -> Self::Future {
        std::future::ready(Session::open(&self.0.inner, request).map(tonic::Response::new))
    }
}

struct SmallBuffers;

impl Codec for SmallBuffers {
    type Encode = DownlinkMessage;
    type Decode = UplinkMessage;
    type Encoder = ProstEncoder<DownlinkMessage>;
    type Decoder = ProstDecoder<UplinkMessage>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER, YIELD))
    }
}
