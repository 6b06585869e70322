//! What a node says about itself, through a network with faults.

use bifrost_wire::RpcError;
use bifrost_wire::node::{NodeService, NodeStatus};
use futures_util::future::BoxFuture;

use super::Route;
use super::call::{Failures, Line, Repeat};
use super::connect::Services;

const UNREACHABLE: Failures<RpcError> = Failures { refused: RpcError::Unreachable, lost: RpcError::Unreachable };

/// A node's word about itself with faults between.
#[derive(Debug)]
pub struct FaultyNode {
    route: Route,
    services: Services,
}

impl FaultyNode {
    pub(super) const fn new(route: Route, services: Services) -> Self {
        Self { route, services }
    }
}

impl NodeService for FaultyNode {
    fn status(&self) -> BoxFuture<'_, Result<NodeStatus, RpcError>> {
        let services = self.services.clone();
        let execute = move |line: Line| -> BoxFuture<'static, Result<NodeStatus, RpcError>> {
            let services = services.get(line);
            Box::pin(async move { services.ok_or(RpcError::Unreachable)?.node.status().await })
        };
        Box::pin(self.route.call("status", Repeat::Reads, UNREACHABLE, execute))
    }
}
