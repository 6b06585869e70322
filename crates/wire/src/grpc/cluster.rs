//! The cluster id that goes with each request, so that a client never takes a node of another cluster for its own: an
//! address may have been given to somebody else since the client learned it.

use bifrost_types::ClusterId;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::error::RpcError;

/// The cluster that a request is meant for, as text. A request without it is taken.
const CLUSTER: &str = "bifrost-cluster";
/// In the refusal of a request for another cluster: the one that the server belongs to.
const SERVER_CLUSTER: &str = "bifrost-server-cluster";

/// Whether a request is meant for the server's cluster. Nothing but its headers was looked at.
///
/// # Errors
/// [`RpcError::OtherCluster`], or [`RpcError::Malformed`] for a header that is no cluster id or is there twice.
pub(super) fn check(headers: &HeaderMap, server: Option<ClusterId>) -> Result<(), RpcError> {
    let mut named = headers.get_all(CLUSTER).iter();
    let Some(client) = named.next() else { return Ok(()) };
    let client = client.to_str().ok().and_then(|text| text.parse().ok()).ok_or(RpcError::Malformed)?;
    if named.next().is_some() {
        return Err(RpcError::Malformed);
    }
    match server {
        Some(server) if server != client => Err(RpcError::OtherCluster { client, server }),
        _ => Ok(()),
    }
}

/// The answer to a header that is no cluster id.
pub(super) fn garbage() -> Status {
    Status::invalid_argument("the header bifrost-cluster is not one cluster id")
}

/// Both ids, for the client to say what happened.
pub(super) fn name_both(client: ClusterId, server: ClusterId, metadata: &mut MetadataMap) {
    for (key, cluster) in [(CLUSTER, client), (SERVER_CLUSTER, server)] {
        if let Some(value) = value(cluster) {
            metadata.insert(key, value);
        }
    }
}

/// The two clusters of a refusal, if that is what it is.
pub(super) fn refusal(metadata: &MetadataMap) -> Option<RpcError> {
    let id = |key| metadata.get(key)?.to_str().ok()?.parse().ok();
    Some(RpcError::OtherCluster { client: id(CLUSTER)?, server: id(SERVER_CLUSTER)? })
}

/// 26 letters and digits are always legal.
fn value(cluster: ClusterId) -> Option<MetadataValue<Ascii>> {
    cluster.to_string().parse().ok()
}

/// Puts the cluster id on each request of a client that knows it.
#[derive(Debug, Clone)]
pub(super) struct NameCluster {
    value: Option<MetadataValue<Ascii>>,
}

impl NameCluster {
    pub(super) fn new(cluster: Option<ClusterId>) -> Self {
        Self { value: cluster.and_then(value) }
    }
}

impl Interceptor for NameCluster {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.value {
            request.metadata_mut().insert(CLUSTER, value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(value: u128) -> ClusterId {
        ClusterId::try_from(value).expect("non-zero")
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CLUSTER, value.parse().expect("a legal header"));
        }
        headers
    }

    #[test]
    fn only_another_cluster_is_refused_and_garbage_is_malformed() {
        let (ours, theirs) = (cluster(1), cluster(2));
        assert_eq!(check(&headers(&[]), Some(ours)), Ok(()));
        assert_eq!(check(&headers(&[&ours.to_string()]), Some(ours)), Ok(()));
        assert_eq!(check(&headers(&[&theirs.to_string()]), None), Ok(()));
        let refused = Err(RpcError::OtherCluster { client: theirs, server: ours });
        assert_eq!(check(&headers(&[&theirs.to_string()]), Some(ours)), refused);
        for garbage in [&["" as &str][..], &["x"], &["00000000000000000000000000"], &[&ours.to_string(), "x"]] {
            assert_eq!(check(&headers(garbage), Some(ours)), Err(RpcError::Malformed), "{garbage:?}");
        }
    }
}
