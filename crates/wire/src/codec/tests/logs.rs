//! The service of logs: round trips, what is refused, and the interface that clients of other languages were built from.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::num::{NonZeroU32, NonZeroUsize};

use proptest::collection::vec;
use proptest::option;
use prost_types::FileDescriptorSet;

use super::arbitrary;
use super::*;
use crate::codec::logs::{FindTail, OfLog, TrimLog};
use crate::codec::records::{LogAppendMessage, LogAppendReply, ReadLogMessage};
use crate::grpc::FILE_DESCRIPTOR_SET;
use crate::logs::*;

fn lsn() -> impl Strategy<Value = Lsn> {
    (1..u64::MAX / 2).prop_map(|value| Lsn::new(value).expect("not 0"))
}

fn log_id() -> impl Strategy<Value = LogId> {
    (1..=u64::MAX).prop_map(|value| LogId::try_from(value).expect("not 0"))
}

fn log_ref() -> impl Strategy<Value = LogRef> {
    prop_oneof![".{0,20}".prop_map(LogRef::Name), log_id().prop_map(LogRef::Id)]
}

fn keys() -> impl Strategy<Value = Keys> {
    prop_oneof![
        Just(Keys::None),
        any::<u64>().prop_map(Keys::Single),
        any::<(u64, u64)>().prop_map(|(one, two)| Keys::Pair(one, two)),
        any::<(u64, u64)>().prop_map(|(one, two)| Keys::Range(one, two)),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    (vec(any::<u8>(), 0..40), keys()).prop_map(|(payload, keys)| Record::new(payload).with_keys(keys))
}

fn new_records() -> impl Strategy<Value = Vec<NewRecord>> {
    let new = (record(), option::of(any::<u32>()));
    vec(new.prop_map(|(record, payload_crc32c)| NewRecord { record, payload_crc32c }), 0..4)
}

fn refusal() -> impl Strategy<Value = LogRefusal> {
    prop_oneof![
        Just(LogRefusal::UnknownLog),
        log_id().prop_map(|log| LogRefusal::NameTaken { log }),
        Just(LogRefusal::InvalidName),
        Just(LogRefusal::NoPlacement),
        lsn().prop_map(|tail| LogRefusal::BeyondTail { tail }),
        Just(LogRefusal::Closed),
        Just(LogRefusal::MetadataUnavailable),
        Just(LogRefusal::Damaged),
        Just(LogRefusal::Exhausted),
    ]
}

fn outcome<T: std::fmt::Debug>(answer: impl Strategy<Value = T>) -> impl Strategy<Value = Result<T, LogRefusal>> {
    prop_oneof![answer.prop_map(Ok), refusal().prop_map(Err)]
}

fn committed() -> impl Strategy<Value = CommittedAt> {
    (lsn(), 0..65_536_u64).prop_map(|(first_lsn, more)| CommittedAt {
        first_lsn,
        last_lsn: first_lsn.advance(more).expect("small numbers"),
    })
}

fn append_id() -> impl Strategy<Value = AppendId> {
    ((log_id(), 1..=u128::MAX, 1..u64::MAX / 2, 1..=u32::MAX), (any::<u32>(), lsn(), 0..u64::MAX)).prop_map(
        |((log, writer, sequence, records), (segment, from, incarnation))| AppendId {
            log,
            writer: WriterId::try_from(writer).expect("not 0"),
            sequence: Sequence::try_from(sequence).expect("not 0"),
            records: NonZeroU32::new(records).expect("not 0"),
            segment: SegmentIndex::new(segment),
            from,
            incarnation,
        },
    )
}

fn not_appended() -> impl Strategy<Value = NotAppended> {
    prop_oneof![
        Just(NotAppended::EmptyBatch),
        any::<(u32, u64)>().prop_map(|(record, bytes)| NotAppended::RecordTooLarge { record, bytes }),
        any::<u64>().prop_map(|bytes| NotAppended::BatchTooLarge { bytes }),
        any::<u64>().prop_map(|records| NotAppended::TooManyRecords { records }),
        any::<u32>().prop_map(|record| NotAppended::InvertedKeys { record }),
        any::<(u32, u32)>().prop_map(|(record, actual)| NotAppended::BadChecksum { record, actual }),
        Just(NotAppended::NoProgress),
        Just(NotAppended::DiskFull),
        refusal().prop_map(NotAppended::Refused),
    ]
}

fn append_outcome() -> impl Strategy<Value = AppendOutcome> {
    prop_oneof![
        committed().prop_map(AppendOutcome::Committed),
        not_appended().prop_map(AppendOutcome::NotAppended),
        option::of(append_id()).prop_map(AppendOutcome::Unknown),
    ]
}

fn event() -> impl Strategy<Value = LogEvent> {
    let read =
        (lsn(), record(), any::<u32>(), any::<u64>()).prop_map(|(lsn, record, payload_crc32c, created_at_millis)| {
            ReadRecord { lsn, record, payload_crc32c, created_at_millis }
        });
    let kind = prop::sample::select(vec![GapKind::Trimmed, GapKind::Lost]);
    prop_oneof![
        vec(read, 1..4).prop_map(LogEvent::Records),
        (lsn(), 1..1000_u64, kind).prop_map(|(from, length, kind)| LogEvent::Gap {
            from,
            end: from.advance(length).expect("small numbers"),
            kind,
        }),
        lsn().prop_map(|tail| LogEvent::CaughtUp { tail }),
    ]
}

fn tail_kind() -> impl Strategy<Value = TailKind> {
    prop::sample::select(vec![TailKind::Cached, TailKind::Linearizable])
}

proptest! {
    #[test]
    fn requests_about_logs_round_trip(
        (log, name, up_to) in (log_ref(), option::of(".{0,20}"), lsn()),
        (after, page_size) in (option::of(log_id()), 1..=PAGE_SIZE_MAX),
        (kind, append) in (tail_kind(), append_id()),
        description in arbitrary::chain().prop_map(LogDescription::from),
    ) {
        let replication = description.segments.first().map(|segment| segment.params.replication.clone());
        round::<pb::CreateLogRequest, _>(&CreateLog { name: name.clone(), replication });
        round::<pb::CreateLogRequest, _>(&CreateLog { name, replication: None });
        round::<pb::GetLogRequest, _>(&OfLog(log.clone()));
        round::<pb::DeleteLogRequest, _>(&OfLog(log.clone()));
        let page_size = NonZeroUsize::new(page_size).expect("at least 1");
        round::<pb::ListLogsRequest, _>(&ListLogs { after, page_size });
        round::<pb::FindTailRequest, _>(&FindTail { log: log.clone(), kind });
        round::<pb::TrimLogRequest, _>(&TrimLog { log, up_to });
        round::<pb::ResolveRequest, _>(&append);
    }

    #[test]
    fn answers_about_logs_round_trip(
        chain in arbitrary::chain(),
        next_after in option::of(log_id()),
        deleted in outcome(log_id()),
        tail in outcome((lsn(), tail_kind()).prop_map(|(lsn, kind)| LogTail { lsn, kind })),
        trimmed in outcome(lsn()),
        refused in refusal(),
    ) {
        let summary = LogSummary::from(&chain);
        let described = Ok(LogDescription::from(chain));
        round::<pb::CreateLogResponse, _>(&described);
        round::<pb::GetLogResponse, _>(&described);
        round::<pb::GetLogResponse, _>(&Err::<LogDescription, _>(refused));
        round::<pb::ListLogsResponse, _>(&Ok(LogPage { logs: vec![summary], next_after }));
        round::<pb::DeleteLogResponse, _>(&deleted);
        round::<pb::FindTailResponse, _>(&tail);
        round::<pb::TrimLogResponse, _>(&trimmed);
    }

    #[test]
    fn appends_and_reads_of_logs_round_trip(
        (log, records) in (log_ref(), new_records()),
        (outcome, resolved) in (append_outcome(), outcome(prop_oneof![
            committed().prop_map(ResolvedAppend::Committed),
            Just(ResolvedAppend::Absent),
            Just(ResolvedAppend::Unknowable),
        ])),
        (from, length, key) in (lsn(), 0..1000_u64, any::<u64>()),
        (event, refused, id) in (event(), refusal(), log_id()),
    ) {
        round::<pb::AppendRecordsRequest, _>(&AppendRecords { log: log.clone(), records: records.clone() });
        round::<pb::AppendRecordsResponse, _>(&outcome);
        round::<pb::AppendStreamRequest, _>(&LogAppendMessage::Open(log.clone()));
        round::<pb::AppendStreamRequest, _>(&LogAppendMessage::Append(records));
        round::<pb::AppendStreamResponse, _>(&LogAppendReply::Opened(id));
        round::<pb::AppendStreamResponse, _>(&LogAppendReply::Appended(outcome));
        round::<pb::AppendStreamResponse, _>(&LogAppendReply::Refused(refused));
        let until = Some(from.advance(length).expect("small numbers"));
        let filter = KeyFilter::Key(key);
        round::<pb::ReadLogRequest, _>(&ReadLog { log: log.clone(), from: Some(from), until, filter });
        round::<pb::ReadLogRequest, _>(&ReadLog { log, from: None, until: None, filter: KeyFilter::Any });
        round::<pb::ReadLogResponse, _>(&ReadLogMessage::Event(event));
        round::<pb::ReadLogResponse, _>(&ReadLogMessage::Refused(refused));
        round::<pb::ResolveResponse, _>(&resolved);
    }
}

#[test]
fn what_contradicts_itself_or_is_unset_is_refused_by_name() {
    let read = || pb::ReadLogRequest {
        log: Some(LogRef::Name("orders".to_owned()).into()),
        from: Some(9),
        until: Some(9),
        filter: None,
    };
    assert!(ReadLog::try_from(read()).is_ok(), "an empty range is a range");
    for (broken, error) in [
        (pb::ReadLogRequest { log: None, ..read() }, DecodeError::Missing { field: "ReadLogRequest.log" }),
        (
            pb::ReadLogRequest { log: Some(pb::LogRef { log: None }), ..read() },
            DecodeError::Missing { field: "LogRef.log" },
        ),
        (
            pb::ReadLogRequest { log: Some(pb::LogRef { log: Some(pb::log_ref::Log::Id(0)) }), ..read() },
            DecodeError::Zero { field: "LogRef.id" },
        ),
        (pb::ReadLogRequest { from: Some(0), ..read() }, DecodeError::Zero { field: "ReadLogRequest.from" }),
        (pb::ReadLogRequest { until: Some(8), ..read() }, DecodeError::Inconsistent { field: "ReadLogRequest.until" }),
        (
            pb::ReadLogRequest { filter: Some(KeyFilter::Range(2, 1).into()), ..read() },
            DecodeError::Inconsistent { field: "ReadLogRequest.filter" },
        ),
        (
            pb::ReadLogRequest { filter: Some(pb::KeyFilter { filter: None }), ..read() },
            DecodeError::Missing { field: "KeyFilter.filter" },
        ),
    ] {
        assert_eq!(ReadLog::try_from(broken), Err(error));
    }
    let page = pb::ListLogsRequest { after: None, page_size: 257 };
    assert_eq!(ListLogs::try_from(page), Err(DecodeError::OutOfRange { field: "ListLogsRequest.page_size" }));
    let page = pb::ListLogsRequest { after: None, page_size: 0 };
    assert_eq!(ListLogs::try_from(page).map(|list| list.page_size), Ok(PAGE_SIZE_DEFAULT));
    for kind in [0, 9] {
        let tail = pb::FindTailRequest { log: read().log, kind };
        let error = DecodeError::UnknownValue { field: "FindTailRequest.kind", value: kind };
        assert_eq!(FindTail::try_from(tail), Err(error));
    }
}

#[test]
fn an_append_id_that_no_node_gave_is_refused() {
    let resolve = |text: &str| AppendId::try_from(pb::ResolveRequest { append_id: text.to_owned() });
    let field = "ResolveRequest.append_id";
    let writer = "00000000000000000000000001";
    assert!(resolve(&format!("7/{writer}/1+1/4/1/2")).is_ok());
    for text in ["", "7", "orders", "7/x/1+1/4/1/2", &format!("0/{writer}/1+1/4/1/2")] {
        assert_eq!(resolve(text), Err(DecodeError::NotAnId { field }), "{text}");
    }
    // An incarnation without a successor could not be fenced, and the segment would be closed for it.
    for text in [format!("7/{writer}/1+1/4/1/{}", u64::MAX), format!("7/{writer}/{}+2/4/1/2", u64::MAX)] {
        assert_eq!(resolve(&text), Err(DecodeError::OutOfRange { field }), "{text}");
    }
    let error = DecodeError::TooLong { field, actual: 10_000, max: APPEND_ID_BYTES_MAX };
    assert_eq!(resolve(&"7".repeat(10_000)), Err(error));
}

/// What a client of another language was built from: every service, message, field, number and enum value of the service
/// of logs. Additions are fine (write the file anew with `UPDATE=1`); a line that goes or changes breaks clients.
#[test]
fn the_interface_of_logs_only_grows() {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("own descriptors");
    let file = set.file.iter().find(|file| file.name() == "bifrost/v1/log.proto").expect("part of the protocol");
    let mut lines = BTreeSet::new();
    for service in &file.service {
        for method in &service.method {
            let stream = |streams| if streams { "stream " } else { "" };
            lines.insert(format!(
                "rpc {}.{}({}{}) returns ({}{})",
                service.name(),
                method.name(),
                stream(method.client_streaming()),
                method.input_type(),
                stream(method.server_streaming()),
                method.output_type(),
            ));
        }
    }
    for message in &file.message_type {
        fields(message.name(), message, &mut lines);
    }
    for kind in &file.enum_type {
        lines.extend(
            kind.value.iter().map(|value| format!("enum {} {} = {}", kind.name(), value.name(), value.number())),
        );
    }
    let now = lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/log-service-v1.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &now).expect("the file of this crate can be written");
    }
    let pinned = std::fs::read_to_string(path).expect("the file of this crate");
    let gone: Vec<&str> = pinned.lines().filter(|line| !lines.contains(*line)).collect();
    assert!(gone.is_empty(), "clients were built from these lines: {gone:#?}");
    assert_eq!(pinned, now, "write the additions down with UPDATE=1");
}

fn fields(path: &str, message: &prost_types::DescriptorProto, lines: &mut BTreeSet<String>) {
    for field in &message.field {
        let kind = format!("{:?}", field.r#type()).to_lowercase();
        lines.insert(format!(
            "{path}.{} = {} {kind}{} {:?}{}{}",
            field.name(),
            field.number(),
            field.type_name(),
            field.label(),
            if field.proto3_optional() { " optional" } else { "" },
            if field.oneof_index.is_some() { " oneof" } else { "" },
        ));
    }
    for nested in &message.nested_type {
        fields(&format!("{path}.{}", nested.name()), nested, lines);
    }
}
