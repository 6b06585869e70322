//! Messages as protobuf: as tonic does it, but bytes that are no message are the sender's fault, and a message has all of its
//! memory before it is encoded.

use std::marker::PhantomData;
use std::sync::Arc;

use prost::Message;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What the generated code uses.
#[derive(Debug)]
pub(crate) struct ProtobufCodec<T, U> {
    types: PhantomData<(T, U)>,
}

impl<T, U> Default for ProtobufCodec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<T, U> Codec for ProtobufCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProtobufEncoder<T>;
    type Decoder = ProtobufDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProtobufEncoder { message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProtobufDecoder { message: PhantomData }
    }
}

/// Asks for the memory of a message at once: one that grows batch by batch is copied from one piece of memory to the next.
#[derive(Debug)]
pub(crate) struct ProtobufEncoder<T> {
    message: PhantomData<T>,
}

impl<T: Message> Encoder for ProtobufEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(format!("a message has no room: {error}")))
    }
}

/// Refuses what is no message with INVALID_ARGUMENT; tonic would say INTERNAL, as if the server had failed. The error has a
/// source, which tells it from a status that came from a peer.
#[derive(Debug)]
pub(crate) struct ProtobufDecoder<U> {
    message: PhantomData<U>,
}

impl<U: Message + Default> Decoder for ProtobufDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::decode(bytes).map(Some).map_err(|error| {
            let mut status = Status::invalid_argument(format!("not a protobuf message: {error}"));
            status.set_source(Arc::new(error));
            status
        })
    }
}
