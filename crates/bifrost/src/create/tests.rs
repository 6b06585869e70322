#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use super::*;
use crate::test_world::World;
use crate::{LogOptions, fresh_op};

#[tokio::test(start_paused = true)]
async fn logs_that_are_made_at_once_share_transactions_and_no_id() {
    let world = World::new().await;
    let client = world.client().await;
    let before = world.catalog().chains_revision().await.unwrap();
    let names: Vec<String> = (0..10 * TOGETHER_MAX).map(|number| format!("log-{number}")).collect();
    let made = join_all(names.iter().map(|name| client.create_log(name, LogOptions::default()))).await;
    let logs: BTreeSet<_> = made.into_iter().map(|made| made.unwrap().id()).collect();
    assert_eq!(logs.len(), names.len());
    for name in &names {
        assert!(logs.contains(&client.log(name).await.unwrap().id()), "{name} is one of them");
    }
    let transactions = world.catalog().chains_revision().await.unwrap() - before;
    assert!(transactions <= 20, "{} logs in {transactions} transactions", names.len());
}

#[tokio::test(start_paused = true)]
async fn of_those_who_want_one_name_at_once_one_gets_it_and_the_others_are_told_whose_it_is() {
    let world = World::new().await;
    let clients = [world.client().await, world.client().await];
    let wanting = (0..40).map(|number| {
        let name = format!("name-{}", number % 4);
        let client = &clients[number / 4 % 2];
        async move { (name.clone(), client.create_log(&name, LogOptions::default()).await) }
    });
    let told = join_all(wanting).await;
    for number in 0..4 {
        let name = format!("name-{number}");
        let log = clients[0].log(&name).await.unwrap().id();
        let of_name: Vec<_> = told.iter().filter(|(of, _)| *of == name).map(|(_, made)| made).collect();
        assert_eq!(of_name.len(), 10);
        assert_eq!(of_name.iter().filter(|made| made.as_ref().is_ok_and(|made| made.id() == log)).count(), 1);
        let taken = |error: &crate::LogError| matches!(error, crate::LogError::Catalog(CatalogError::NameTaken { log: by }) if *by == log);
        assert_eq!(of_name.iter().filter(|made| made.as_ref().is_err_and(taken)).count(), 9);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_made_its_log_finds_it_again() {
    let world = World::new().await;
    let catalog = world.catalog();
    let (creator, making) = Creator::new(catalog.clone());
    let tasks = TaskTracker::new();
    let making = tasks.spawn(making);
    let (op, first) = (fresh_op(), world.successor(0));
    let roster = catalog.roster().await.unwrap();
    let made = creator.create(&catalog, Some("orders"), op, &first, roster).await.unwrap();
    let again = creator.create(&catalog, Some("orders"), op, &first, roster).await.unwrap();
    assert_eq!(made.chain, again.chain);
    drop(creator);
    making.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn logs_chosen_under_an_old_roster_are_not_made_and_those_beside_them_are() {
    let world = World::new().await;
    let catalog = world.catalog();
    let (creator, making) = Creator::new(catalog.clone());
    let tasks = TaskTracker::new();
    tasks.spawn(making);
    let first = world.successor(0);
    let (old, now) = (Roster::UNREAD, catalog.roster().await.unwrap());
    let wanting = (0..10).map(|number| {
        let roster = if number % 2 == 0 { old } else { now };
        creator.create(&catalog, None, fresh_op(), &first, roster)
    });
    for (number, made) in join_all(wanting).await.into_iter().enumerate() {
        match number % 2 {
            0 => assert_eq!(made, Err(CatalogError::NodesChanged)),
            _ => assert!(made.is_ok(), "{made:?}"),
        }
    }
}
