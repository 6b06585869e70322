//! What a node says about itself over gRPC.

use std::sync::Arc;

use bifrost_types::Roles;
use futures_util::future::BoxFuture;

use super::*;
use crate::error::RpcError;
use crate::node::{NodeLoad, NodeService, NodeStatus};

#[derive(Debug)]
struct Fake(Result<NodeStatus, RpcError>);

impl NodeService for Fake {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        Box::pin(std::future::ready(self.0.clone()))
    }
}

async fn host(answer: Result<NodeStatus, RpcError>) -> Host {
    let service = Arc::new(Fake(answer));
    Host::start(|routes, _, shutdown| NodeGrpc::new(service, shutdown).add_to(routes)).await
}

#[tokio::test]
async fn a_status_and_a_refusal_arrive_as_they_are() {
    let status = NodeStatus {
        id: sequencer_node(),
        roles: Roles::DATA,
        disk: None,
        load: NodeLoad::default(),
        uptime: Duration::from_secs(1),
        leaving: false,
        catch_up: None,
    };
    for answer in [Ok(status), Err(RpcError::ShuttingDown), Err(RpcError::Overloaded)] {
        let host = host(answer.clone()).await;
        let client = GrpcNode::connect_lazy(&host.address, &ClientOptions::default()).expect("an address");
        assert_eq!(soon(client.status()).await, answer);
        drop(client);
        host.stop().await;
    }
}
