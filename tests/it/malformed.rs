//! Requests that no client of ours would send, against a live node: each is refused in good order, the node stays up, and
//! an honest append works after each kind.

use bifrost::catalog::CatalogError;
use bifrost::{Bifrost, LogError, Options, StartError};
use bifrost_node::local_cluster::{LocalCluster, LocalClusterOptions};
use bifrost_types::{
    ClusterId, DiskId, Generation, LogId, LogletId, LogletOffset, NodeGeneration, OpId, SegmentIndex, WriterId,
};
use bifrost_wire::RpcError;
use bifrost_wire::grpc::{ClientOptions, FILE_DESCRIPTOR_SET, GrpcLogServer, GrpcMetadata, GrpcSequencers};
use bifrost_wire::log_server::{CallError, CopyError, LogServer, SealRequest, StateRequest, StoreRequest};
use bifrost_wire::metadata::{MetadataError, MetadataStore};
use bifrost_wire::sequencer::{AppendOpen, SequencerCallError, SequencerError, Sequencers};
use bytes::Bytes;
use prost_reflect::prost::Message;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tonic::Code;

use super::faults::seed_of;
use super::support::honest::Honest;
use super::support::protobuf::{bytes, number, varint};
use super::support::raw::{RawConnection, framed, soon};

/// How deep, and how many.
const NESTED: usize = 100_000;
const UNKNOWN_FIELDS: usize = 1_000_000;
/// No log of this test.
const NOBODYS: u64 = 777;

async fn node() -> (LocalCluster, String) {
    let cluster = LocalCluster::start(LocalClusterOptions { nodes: 1, ..LocalClusterOptions::default() }).await;
    let cluster = cluster.expect("a node");
    let address = cluster.addresses().await.remove(0);
    (cluster, address)
}

/// A value that is legal by itself for most fields.
fn plausible(kind: &Kind) -> Value {
    match kind {
        Kind::Double | Kind::Float => Value::F64(1.0),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(7),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(7),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(NOBODYS as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(NOBODYS),
        Kind::Bool => Value::Bool(true),
        Kind::String => Value::String("nobodys".to_owned()),
        Kind::Bytes => Value::Bytes(Bytes::from_static(&[7; 16])),
        Kind::Enum(descriptor) => Value::EnumNumber(descriptor.values().last().expect("some value").number()),
        Kind::Message(descriptor) => Value::Message(filled(descriptor)),
    }
}

/// Every field set, of each oneof the first.
fn filled(descriptor: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let first = field.containing_oneof().is_none_or(|oneof| oneof.fields().next().as_ref() == Some(&field));
        if !first {
            continue;
        }
        let value = plausible(&field.kind());
        let value = if field.cardinality() == Cardinality::Repeated { Value::List(vec![value]) } else { value };
        message.set_field(&field, value);
    }
    message
}

/// The message with one thing wrong, for each thing that can be: a message or oneof that is not set, an enum value that
/// nobody knows, a number or an id that is 0 or too long, another member of a oneof. What was done, and the result.
fn variants(message: &DynamicMessage) -> Vec<(String, DynamicMessage)> {
    let mut variants = Vec::new();
    for field in message.descriptor().fields() {
        if !message.has_field(&field) {
            let mut other = message.clone();
            other.set_field(&field, one(&field, plausible(&field.kind())));
            variants.push((format!("{} in place of another", field.name()), other));
            continue;
        }
        let mut without = message.clone();
        without.clear_field(&field);
        variants.push((format!("{} missing", field.name()), without));
        let wrong = match field.kind() {
            Kind::Enum(_) => vec![Value::EnumNumber(4242), Value::EnumNumber(-1)],
            Kind::Uint64 => vec![Value::U64(u64::MAX)],
            Kind::Uint32 => vec![Value::U32(u32::MAX)],
            Kind::Bytes => vec![Value::Bytes(Bytes::from_static(&[7; 15])), Value::Bytes(vec![0; 70_000].into())],
            Kind::String => vec![Value::String("../\0".to_owned()), Value::String("x".repeat(70_000))],
            Kind::Message(_) => {
                let inner = message.get_field(&field);
                let inner = match &*inner {
                    Value::List(elements) => elements.first().cloned(),
                    other => Some(other.clone()),
                };
                let Some(Value::Message(inner)) = inner else { continue };
                for (what, inner) in self::variants(&inner) {
                    let mut other = message.clone();
                    other.set_field(&field, one(&field, Value::Message(inner)));
                    variants.push((format!("{}.{what}", field.name()), other));
                }
                continue;
            }
            _ => continue,
        };
        for value in wrong {
            let mut other = message.clone();
            other.set_field(&field, one(&field, value));
            variants.push((format!("{} of an illegal value", field.name()), other));
        }
    }
    variants
}

fn one(field: &FieldDescriptor, value: Value) -> Value {
    if field.cardinality() == Cardinality::Repeated { Value::List(vec![value]) } else { value }
}

/// Messages in messages, as deep as that, without ever building the inner ones.
fn nested(field: u32) -> Vec<u8> {
    let mut lengths = vec![0_u64];
    for _ in 1..NESTED {
        let inner = lengths.last().copied().unwrap_or_default();
        let header = number(u64::from(field) << 3 | 2).len() + number(inner).len();
        lengths.push(inner + header as u64);
    }
    lengths.iter().rev().flat_map(|length| [number(u64::from(field) << 3 | 2), number(*length)].concat()).collect()
}

/// Groups in groups, under a field that nobody knows.
fn groups() -> Vec<u8> {
    let (begin, end) = (number(1000 << 3 | 3), number(1000 << 3 | 4));
    [begin.repeat(NESTED), end.repeat(NESTED)].concat()
}

/// Opens the connection again if the last request cost it, which is an answer too.
struct Attacker {
    address: String,
    connection: RawConnection,
}

impl Attacker {
    async fn new(address: &str) -> Self {
        let connection = RawConnection::open(address).await.expect("the node listens");
        Self { address: address.to_owned(), connection }
    }

    /// The status of the request, or `None` for a stream that was opened.
    async fn send(&mut self, path: &str, message: &[u8]) -> Option<Code> {
        if !self.connection.is_open() {
            self.connection = RawConnection::open(&self.address).await.expect("the node listens");
        }
        let mut stream = self.connection.stream(path, &[]).await.expect("the connection is open");
        // The server may refuse before it took everything.
        let _ = stream.body.send_data(framed(message), true);
        stream.first().await.expect("an answer")
    }
}

#[tokio::test]
async fn every_method_refuses_what_it_cannot_understand_and_goes_on() {
    let seed = seed_of("malformed requests");
    let mut random = StdRng::seed_from_u64(seed);
    let (cluster, address) = node().await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let mut attacker = Attacker::new(&address).await;
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("our own descriptors");
    let million = varint(1000, 0).repeat(UNKNOWN_FIELDS);
    let mut methods = 0;
    let mut requests = 0;
    for service in pool.services() {
        // Metadata members serve them, at listeners of their own. Their messages are fuzzed like all others.
        if matches!(service.full_name(), "bifrost.v1.MetadataAdminService" | "bifrost.v1.LivenessService") {
            continue;
        }
        for method in service.methods() {
            let path = format!("/{}/{}", service.full_name(), method.name());
            let valid = filled(&method.input());
            let encoded = valid.encode_to_vec();
            let mut attempts: Vec<(String, Vec<u8>)> = vec![("nothing".to_owned(), Vec::new())];
            attempts.push(("everything".to_owned(), encoded.clone()));
            attempts.extend(variants(&valid).into_iter().map(|(what, message)| (what, message.encode_to_vec())));
            for length in 1..encoded.len().min(120) {
                attempts.push((format!("the first {length} bytes"), encoded[..length].to_vec()));
            }
            for _ in 0..30 {
                let mut noise = vec![0; random.random_range(1..200)];
                random.fill_bytes(&mut noise);
                attempts.push((format!("noise {noise:?} of seed {seed}"), noise));
            }
            for field in 1..3 {
                attempts.push((format!("field {field} nested"), nested(field)));
            }
            attempts.push(("groups nested".to_owned(), groups()));
            attempts.push(("unknown fields".to_owned(), million.clone()));
            for (what, message) in attempts {
                let code = attacker.send(&path, &message).await;
                // Nothing is in a request for a status, so hardly any bytes are taken.
                if service.name() == "NodeService" && message.len() > 1024 {
                    assert_eq!(code, Some(Code::OutOfRange), "{path} with {what}");
                    continue;
                }
                assert!(matches!(code, None | Some(Code::Ok | Code::InvalidArgument)), "{path} with {what}: {code:?}");
                // prost goes a hundred messages deep, and no further into what it skips.
                if what == "groups nested" {
                    assert_eq!(code, Some(Code::InvalidArgument), "{path} with {what}");
                }
                requests += 1;
            }
            honest.goes_on().await;
            methods += 1;
        }
    }
    println!("{methods} methods, {requests} requests");
    assert!(methods >= 20, "{methods}");
    honest.shutdown().await;
    cluster.shutdown().await;
}

/// A cluster that is not there.
fn foreign() -> ClusterId {
    ClusterId::try_from(1).expect("non-zero")
}

#[tokio::test]
async fn a_request_for_another_cluster_is_refused_with_both_names_before_it_is_decoded() {
    let (cluster, address) = node().await;
    let mut honest = Honest::new(&cluster, "honest").await;
    let server = honest.bifrost.catalog().known_cluster_id().await.expect("metadata is well").expect("made at start");
    let refusal = RpcError::OtherCluster { client: foreign(), server };
    let text = refusal.to_string();
    assert!(text.contains(&server.to_string()) && text.contains(&foreign().to_string()), "{text}");

    let options = ClientOptions { cluster: Some(foreign()), ..ClientOptions::default() };
    let log_server = GrpcLogServer::connect_lazy(&address, options.clone()).expect("an address");
    let loglet = LogletId::new(honest.log.id(), SegmentIndex::FIRST);
    let disk = DiskId::try_from(7).expect("non-zero");
    assert_eq!(soon(log_server.state(StateRequest { loglet, disk })).await, Err(CallError::Rpc(refusal)));
    assert_eq!(soon(log_server.open_store()).await.map(|_| ()), Err(refusal));
    let sequencers = GrpcSequencers::connect_lazy(&address, options.clone()).expect("an address");
    let sequencer = honest.bifrost.nodes()[0].id;
    assert_eq!(soon(sequencers.tails(loglet, sequencer)).await, Err(SequencerCallError::Rpc(refusal)));
    let metadata = GrpcMetadata::connect_lazy(&address, options.clone()).expect("an address");
    let other = MetadataError::OtherCluster { client: foreign(), server };
    assert_eq!(soon(metadata.get("cluster".to_owned())).await, Err(other));
    let connected = soon(Bifrost::connect_with([&address], Options::default(), options)).await;
    assert!(matches!(connected, Err(StartError::Catalog(CatalogError::Metadata(error))) if error == other));

    // Garbage is refused as such, whatever comes behind the headers; no header is taken.
    let mut raw = RawConnection::open(&address).await.expect("there is room");
    let path = "/bifrost.v1.MetadataService/Get";
    for (header, code) in [
        (Some("nonsense"), Code::InvalidArgument),
        (Some(""), Code::InvalidArgument),
        (Some(foreign().to_string().as_str()), Code::FailedPrecondition),
        (Some(server.to_string().as_str()), Code::InvalidArgument),
        (None, Code::InvalidArgument),
    ] {
        let headers: Vec<_> = header.map(|header| ("bifrost-cluster", header)).into_iter().collect();
        let answer = raw.call(path, &headers, framed(&[0xff; 20])).await.expect("an answer");
        assert_eq!(answer.code(), Some(code), "{header:?}: {answer:?}");
    }
    let ours = server.to_string();
    let answer = raw.call(path, &[("bifrost-cluster", &ours)], framed(&bytes(1, b"cluster"))).await.expect("an answer");
    assert_eq!(answer.code(), Some(Code::Ok), "{answer:?}");
    let found = answer.message.expect("a value");
    assert!(found.windows(ours.len()).any(|window| window == ours.as_bytes()), "{found:?}");
    honest.goes_on().await;
    honest.shutdown().await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_address_that_was_given_to_another_cluster_is_an_error_and_not_another_log() {
    let (first, address) = node().await;
    let mut honest = Honest::new(&first, "orders").await;
    honest.goes_on().await;
    let client = honest.bifrost.catalog().known_cluster_id().await.expect("metadata is well").expect("made at start");
    first.shutdown().await;

    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let options = LocalClusterOptions { nodes: 1, first_port: port, ..LocalClusterOptions::default() };
    let second = LocalCluster::start(options).await.expect("the port is free again");
    // Another log of the same name is there now.
    let mut others = Honest::new(&second, "orders").await;
    others.goes_on().await;
    let server = others.bifrost.catalog().known_cluster_id().await.expect("metadata is well").expect("made at start");
    let refused = async {
        loop {
            // The old connection may have to break first.
            match honest.bifrost.log("orders").await {
                Err(LogError::Catalog(CatalogError::Metadata(MetadataError::Unknown | MetadataError::Unavailable))) => {
                }
                other => return other.map(|_| ()),
            }
        }
    };
    let expected = LogError::Catalog(MetadataError::OtherCluster { client, server }.into());
    assert_eq!(soon(refused).await, Err(expected));
    others.goes_on().await;
    others.shutdown().await;
    honest.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn wrong_disks_unknown_loglets_and_other_lives_of_a_node_get_typed_refusals() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let directory = Some(place.path().to_owned());
    let options = LocalClusterOptions { nodes: 1, directory, ..LocalClusterOptions::default() };
    let cluster = LocalCluster::start(options).await.expect("a node");
    let address = cluster.addresses().await.remove(0);
    let mut honest = Honest::new(&cluster, "honest").await;
    honest.goes_on().await;
    let node = honest.bifrost.nodes().remove(0);
    let disk = node.disk.expect("a node that runs has a disk");
    let log_server = GrpcLogServer::connect_lazy(&address, ClientOptions::default()).expect("an address");
    let sequencers = GrpcSequencers::connect_lazy(&address, ClientOptions::default()).expect("an address");
    let loglet = LogletId::new(honest.log.id(), SegmentIndex::FIRST);
    let unknown = LogletId::new(LogId::try_from(NOBODYS).expect("non-zero"), SegmentIndex::FIRST);
    let op = OpId::try_from(5).expect("non-zero");

    let other = DiskId::try_from(7).expect("non-zero");
    let refused = soon(log_server.seal(SealRequest { loglet, disk: other, op })).await;
    assert_eq!(refused, Err(CallError::Copy(CopyError::WrongDisk { actual: disk })));
    honest.goes_on().await;

    // A log server does not know chains: it keeps what it is given, within its limits, and nobody reads it.
    let sealed = soon(log_server.seal(SealRequest { loglet: unknown, disk, op })).await.expect("it is sealed empty");
    assert_eq!(sealed.sealed, Some(op));
    let mut stores = soon(log_server.open_store()).await.expect("the server is well");
    let garbage = StoreRequest {
        loglet: unknown,
        disk,
        sequencer: node.id,
        committed_tail: LogletOffset::FIRST,
        first_offset: LogletOffset::FIRST,
        batches: vec![Bytes::from_static(&[7; 100])],
    };
    stores.requests.send(garbage).await.expect("the stream is open");
    let reply = soon(stores.replies.recv()).await.expect("an answer");
    assert!(matches!(reply.outcome, Some(Err(CopyError::BadBatch { .. } | CopyError::Sealed { .. }))), "{reply:?}");
    honest.goes_on().await;

    let open = |loglet, sequencer| AppendOpen {
        loglet,
        sequencer,
        writer: WriterId::try_from(9).expect("non-zero"),
        incarnation: 1,
    };
    let next = node.id.generation.next().expect("far from the end");
    let last = Generation::try_from(u32::MAX).expect("non-zero");
    for generation in [next, last] {
        let life = NodeGeneration::new(node.id.node, generation);
        let refused = soon(sequencers.open_append(open(loglet, life))).await.map(|_| ());
        assert_eq!(refused, Err(SequencerCallError::Refused(SequencerError::NotSequencer)), "{life}");
        let refused = soon(sequencers.tails(loglet, life)).await;
        assert_eq!(refused, Err(SequencerCallError::Refused(SequencerError::NotSequencer)), "{life}");
    }
    let refused = soon(sequencers.open_append(open(unknown, node.id))).await.map(|_| ());
    assert_eq!(refused, Err(SequencerCallError::Refused(SequencerError::NotOpen)));
    honest.goes_on().await;

    // The node begins another life: what was meant for the last one is stale.
    cluster.stop_node(0).await;
    cluster.start_node(0).await.expect("its disk is free again");
    let address = cluster.addresses().await.remove(0);
    let sequencers = GrpcSequencers::connect_lazy(&address, ClientOptions::default()).expect("an address");
    let refused = soon(sequencers.open_append(open(loglet, node.id))).await.map(|_| ());
    assert_eq!(refused, Err(SequencerCallError::Refused(SequencerError::NotSequencer)));
    honest.shutdown().await;
    cluster.shutdown().await;
}
