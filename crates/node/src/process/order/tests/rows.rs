//! The table, row by row: what is refused, and what decides between two steps.

use super::*;

type Next = Result<Option<Step>, Refused>;

/// What comes next after these outcomes.
fn next(wanted: &Wanted, file: Option<NodeState>, outcomes: &[Outcome]) -> Next {
    let mut order = Order::new(wanted.clone(), file);
    for outcome in outcomes {
        order.learn(outcome.clone());
    }
    order.next()
}

fn refused(refused: Refused) -> Next {
    Err(refused)
}

fn step(step: Step) -> Next {
    Ok(Some(step))
}

fn found(number: u128) -> Outcome {
    Outcome::FoundThere(Some(Found { cluster: cluster(number), metadata: vec![FIRST_MEMBER.to_owned()] }))
}

#[test]
fn an_empty_directory_makes_a_cluster_or_joins_one() {
    let join = Wanted { join: true, ..wanted() };
    let make = Wanted { make: Some(cluster(7)), ..wanted() };
    let directory = PathBuf::from("data");
    assert_eq!(next(&wanted(), None, &[]), refused(Refused::NoCluster { directory }));
    assert_eq!(next(&make, None, &[]), refused(Refused::BootstrapWithoutMetadata));
    assert_eq!(next(&join, None, &[]), step(Step::LookThere { wait: true }));
    let begun = NodeState { node: None, ..joined() };
    assert_eq!(next(&join, None, &[found(7)]), step(Step::Write(begun)));
}

#[test]
fn an_empty_directory_takes_the_cluster_in_etcd_or_makes_the_first_one_there() {
    let prefix = || "bifrost".to_owned();
    let make = Wanted { make: Some(cluster(9)), ..in_etcd() };
    let both = Wanted { join: true, ..in_etcd() };
    assert_eq!(next(&both, None, &[]), refused(Refused::JoinWithEtcd));
    assert_eq!(next(&in_etcd(), None, &[]), step(Step::LookInEtcd));
    let (nobody, taken) = (Outcome::FoundInEtcd(None), Outcome::FoundInEtcd(Some(cluster(7))));
    let no_cluster = Refused::NoClusterInEtcd { prefix: prefix() };
    assert_eq!(next(&in_etcd(), None, std::slice::from_ref(&nobody)), refused(no_cluster.clone()));
    let is_taken = Refused::ClusterInEtcd { prefix: prefix(), cluster: cluster(7) };
    assert_eq!(next(&make, None, std::slice::from_ref(&taken)), refused(is_taken));
    // One that goes on finds its own, unless it was stopped before it made it, or loses to somebody who made another.
    let known = NodeState { engine: Engine::Etcd, metadata: Vec::new(), ..joined() };
    assert_eq!(next(&in_etcd(), Some(known.clone()), std::slice::from_ref(&nobody)), refused(no_cluster));
    let other = |found| refused(Refused::OtherCluster { own: cluster(7), found: cluster(found) });
    assert_eq!(next(&in_etcd(), Some(known.clone()), &[Outcome::FoundInEtcd(Some(cluster(8)))]), other(8));
    let makes = NodeState { begun: Begun::Bootstrap, node: None, ..known };
    assert_eq!(next(&make, Some(makes.clone()), &[nobody.clone(), Outcome::SetAside]), step(Step::MakeClusterInEtcd));
    let lost = [nobody, Outcome::SetAside, Outcome::FoundInEtcd(Some(cluster(8)))];
    assert_eq!(next(&make, Some(makes), &lost), other(8));
}

#[test]
fn a_directory_is_of_one_name_and_one_cluster() {
    let named = |name: &str| Wanted { name: name.to_owned(), ..wanted() };
    let other = Refused::OtherName { found: "three".to_owned(), wanted: "four".to_owned() };
    assert_eq!(next(&named("four"), Some(joined()), &[]), refused(other));
    // One that never became a node may be called anything.
    let nobody = NodeState { node: None, ..joined() };
    let renamed = NodeState { name: "four".to_owned(), ..nobody.clone() };
    assert_eq!(next(&named("four"), Some(nobody), &[]), step(Step::Write(renamed)));
    let make = Wanted { make: Some(cluster(9)), ..with_member() };
    assert_eq!(next(&make, Some(joined()), &[]), refused(Refused::BelongsToCluster { cluster: cluster(7) }));
    let join = Wanted { join: true, ..wanted() };
    let of_another = || refused(Refused::OtherCluster { own: cluster(7), found: cluster(8) });
    assert_eq!(next(&join, Some(joined()), &[]), step(Step::LookThere { wait: false }));
    assert_eq!(next(&join, Some(joined()), &[found(8)]), of_another());
    for harmless in [found(7), Outcome::FoundThere(None)] {
        assert_eq!(next(&join, Some(joined()), &[harmless]), step(Step::AwaitMetadata));
    }
    assert_eq!(next(&wanted(), Some(joined()), &[Outcome::MetadataAnswers(Some(cluster(8)))]), of_another());
    for own in [Some(cluster(7)), None] {
        assert_eq!(next(&wanted(), Some(joined()), &[Outcome::MetadataAnswers(own)]), step(Step::StartNode));
    }
}

#[test]
fn a_change_of_the_engine_must_be_wanted_and_leaves_the_member_behind() {
    let elsewhere = NodeState { engine: Engine::Etcd, metadata: Vec::new(), ..joined() };
    assert_eq!(next(&wanted(), Some(elsewhere.clone()), &[]), refused(Refused::IsInEtcd));
    let join = Wanted { join: true, ..wanted() };
    assert_eq!(next(&join, Some(elsewhere.clone()), &[]), step(Step::LookThere { wait: true }));
    assert_eq!(next(&join, Some(elsewhere.clone()), &[found(7)]), step(Step::Write(joined())));
    let other = Refused::OtherCluster { own: cluster(7), found: cluster(8) };
    assert_eq!(next(&join, Some(elsewhere.clone()), &[found(8)]), refused(other));
    let member = NodeState { member: member(OWN, true), ..joined() };
    let there = [Outcome::FoundInEtcd(Some(cluster(7)))];
    assert_eq!(next(&in_etcd(), Some(member), &there), step(Step::Write(elsewhere.clone())));
    assert_eq!(next(&in_etcd(), Some(elsewhere), &there), step(Step::SetMemberAside));
}

#[test]
fn a_member_returns_with_its_log_or_not_at_all_while_its_votes_count() {
    let file = |voter| Some(NodeState { member: member(OWN, voter), ..joined() });
    let directory = PathBuf::from("data").join(METADATA);
    assert_eq!(next(&wanted(), file(true), &[]), refused(Refused::StillMember));
    let ask = |voter, log: Option<Lineage>, view| {
        next(&with_member(), file(voter), &[Outcome::FoundLog(log), Outcome::GroupSays(view)])
    };
    for (log, decides) in [(Some(Lineage::default()), false), (None, true)] {
        let asked = next(&with_member(), file(true), &[Outcome::FoundLog(log)]);
        assert_eq!(
            asked,
            step(Step::AskGroup { decides }),
            "a start with its log does not wait for members that are away"
        );
    }
    let with_us = || view(&[(1, FIRST_MEMBER), (3, OWN)], 0, &[]);
    let without_us = || view(&[(1, FIRST_MEMBER)], 0, &[]);
    let start = MemberStart { node: node(3), address: OWN.to_owned(), lineage: Lineage::default(), returning: true };
    for answer in [with_us(), without_us(), View::default()] {
        assert_eq!(ask(true, Some(Lineage::default()), answer), step(Step::StartMember(start.clone())));
    }
    let replaced = Refused::MemberReplaced { address: FIRST_MEMBER.to_owned(), directory: directory.clone() };
    assert_eq!(ask(true, Some(Lineage::default()), view(&[(1, FIRST_MEMBER)], 4, &[0])), refused(replaced));
    let lost = || refused(Refused::MemberLost { node: node(3), directory: directory.clone() });
    assert_eq!(ask(true, None, with_us()), lost());
    assert_eq!(ask(true, None, View::default()), lost(), "who does not answer may remember a vote");
    assert_eq!(ask(false, None, with_us()), lost(), "it was added, and the reply was lost");
    let anew = || step(Step::Write(joined()));
    assert_eq!(ask(true, None, without_us()), anew());
    assert_eq!(ask(false, None, without_us()), anew());
    assert_eq!(ask(false, None, View::default()), anew());
    // A member that was never told of a group knows nothing of it.
    let fresh = View::new([(FIRST_MEMBER.to_owned(), says(&[], 0, &[]))]);
    assert_eq!(ask(true, None, fresh), lost());
}

#[test]
fn a_new_member_joins_the_group_that_goes_on_in_place_of_others() {
    let file = Some(NodeState { member: member(OWN, false), ..joined() });
    let answers = [
        (FIRST_MEMBER.to_owned(), says(&[(1, FIRST_MEMBER)], 4, &[0])),
        ("old:1".to_owned(), says(&[(2, "old:1")], 0, &[])),
    ];
    let serves = [
        Outcome::MetadataAnswers(Some(cluster(7))),
        Outcome::NodeServes(node(3)),
        Outcome::GroupSays(View::new(answers)),
    ];
    assert_eq!(next(&with_member(), file.clone(), &serves[..2]), step(Step::AskGroup { decides: true }));
    let lineage = Lineage { group: 4.into(), before: vec![0.into()] };
    let start = MemberStart { node: node(3), address: OWN.to_owned(), lineage, returning: false };
    assert_eq!(next(&with_member(), file, &serves), step(Step::StartMember(start)));
}

#[test]
fn what_was_said_before_metadata_answered_does_not_decide_which_group_is_joined() {
    let file = Some(NodeState { member: member(OWN, false), ..joined() });
    let early = [Outcome::FoundLog(None), Outcome::GroupSays(View::default()), Outcome::Written(joined())];
    let later = [Outcome::MetadataAnswers(None), Outcome::NodeServes(node(3)), Outcome::Written(file.clone().unwrap())];
    assert_eq!(next(&with_member(), file, &[early, later].concat()), step(Step::AskGroup { decides: true }));
}

#[test]
fn a_name_is_taken_by_whoever_has_its_disk() {
    let file = Some(NodeState { node: None, ..joined() });
    let answers = Outcome::MetadataAnswers(Some(cluster(7)));
    assert_eq!(next(&wanted(), file.clone(), std::slice::from_ref(&answers)), step(Step::LookUpName));
    let ask = |record: Option<NodeRecord>, here, lives: Option<bool>| {
        let mut outcomes = vec![answers.clone(), Outcome::FoundName(record.map(|record| Namesake { record, here }))];
        outcomes.extend(lives.map(Outcome::NamesakeAnswers));
        next(&wanted(), file.clone(), &outcomes)
    };
    let elsewhere = |disk| NodeRecord { address: "there:1".to_owned(), ..record(4, disk) };
    let call = || step(Step::CallNamesake { node: node(4), address: "there:1".to_owned() });
    let name = || "three".to_owned();
    let lives = || refused(Refused::NameLives { name: name(), node: node(4), address: "there:1".to_owned() });
    let known = || refused(Refused::NameKnown { name: name(), node: node(4) });
    assert_eq!(ask(None, None, None), step(Step::StartNode));
    // Its own start was interrupted after the record had its disk.
    assert_eq!(ask(Some(record(4, disk(5))), disk(5), None), step(Step::StartNode));
    for here in [None, disk(6)] {
        assert_eq!(ask(Some(elsewhere(disk(5))), here, None), call());
        assert_eq!(ask(Some(elsewhere(disk(5))), here, Some(true)), lives());
        assert_eq!(ask(Some(elsewhere(disk(5))), here, Some(false)), known());
        // At our own address nobody else can live.
        assert_eq!(ask(Some(record(4, disk(5))), here, None), known());
    }
    assert_eq!(ask(Some(elsewhere(None)), None, None), call());
    assert_eq!(ask(Some(elsewhere(None)), None, Some(true)), lives());
    assert_eq!(ask(Some(elsewhere(None)), None, Some(false)), step(Step::StartNode));
    assert_eq!(ask(Some(record(4, None)), None, None), step(Step::StartNode));
}

#[test]
fn a_node_keeps_its_number() {
    let serves = |number| [Outcome::MetadataAnswers(Some(cluster(7))), Outcome::NodeServes(node(number))];
    let other = Refused::OtherNode { known: node(3), found: node(4) };
    assert_eq!(next(&wanted(), Some(joined()), &serves(4)), refused(other));
    let new = NodeState { node: None, ..joined() };
    assert_eq!(next(&wanted(), Some(new), &serves(3)), step(Step::Write(joined())));
    assert_eq!(next(&wanted(), Some(joined()), &serves(3)), Ok(None));
}

#[test]
fn a_first_member_that_moved_before_its_group_was_written_down_tells_the_group_where_it_is() {
    let moved = |voter| NodeState {
        begun: Begun::Bootstrap,
        node: Some(FIRST),
        member: Some(MemberState { address: OWN.to_owned(), voter, moved: true }),
        metadata: vec![OWN.to_owned()],
        ..joined()
    };
    let made = [Outcome::MemberStarted, Outcome::GroupMade];
    assert_eq!(next(&with_member(), Some(moved(false)), &made), step(Step::Write(moved(true))));
    let served = [Outcome::MemberServes, Outcome::MetadataAnswers(Some(cluster(7))), Outcome::NodeServes(FIRST)];
    let add = Step::AddMember { node: FIRST, address: OWN.to_owned() };
    assert_eq!(next(&with_member(), Some(moved(true)), &served), step(add));
}
