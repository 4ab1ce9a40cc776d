//! Replacing blocks: one step, no row lost, none twice, the older row stays.

use super::*;

/// A table with one block of one sample per commit: sample `n` at `n` milliseconds.
async fn with_blocks(store: &Arc<Store>, count: u64) -> Arc<TenantTables> {
    let tables = tables_over(store);
    for n in 0..count {
        let at = i64::try_from(n).expect("small");
        let blocks = write(&tables, Table::Samples, &samples(&[(1, at, n as f64)])).await;
        tables.commit(Table::Samples, blocks, mark(n + 1)).await.expect("commits");
    }
    tables
}

async fn blocks(tables: &TenantTables) -> Vec<Arc<Block>> {
    tables.refresh(Table::Samples).await.expect("reads").blocks.clone()
}

/// One block of the samples `times`, with the value of each as [`with_blocks`] gives it.
async fn merged(tables: &TenantTables, times: std::ops::Range<i64>) -> Vec<NewBlock> {
    let rows: Vec<(usize, i64, f64)> = times.map(|at| (1, at, at as f64)).collect();
    write(tables, Table::Samples, &samples(&rows)).await
}

async fn times_and_values(tables: &Arc<TenantTables>) -> Vec<(i64, f64)> {
    let identities = Some(Arc::new(in_label_order(&samples(&[(1, 0, 0.0)]))));
    let all = ScanRequest { identities, ..ScanRequest::all(Table::Samples, TimeRange::ALL) };
    values(&read(tables, &all).await)
}

fn layout(removed: &[Arc<Block>], added: Vec<NewBlock>) -> [Replacement; 1] {
    [Replacement { removed: removed.to_vec(), added }]
}

#[tokio::test]
async fn blocks_are_replaced_in_one_step_and_keep_their_place() {
    let store = memory_store();
    let tables = with_blocks(&store, 4).await;
    let before = blocks(&tables).await;
    assert!(before.is_sorted_by(|a, b| a.order < b.order), "{before:?}");
    let new = merged(&tables, 1..3).await;
    let change = layout(&before[1..3], new.clone());
    let done = tables.replace(Table::Samples, &change, Replacing::Layout).await.expect("replaces");
    assert_eq!(done, Replaced::Done);
    for tables in [Arc::clone(&tables), tables_over(&store)] {
        let after = blocks(&tables).await;
        let paths: Vec<&str> = after.iter().map(|block| block.path.as_str()).collect();
        assert_eq!(paths, [&*before[0].path, &*new[0].block.path, &*before[3].path]);
        assert_eq!(after[1].order, Order { first: before[1].order.first, last: before[2].order.last });
        assert_eq!(times_and_values(&tables).await, [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]);
    }
    let again = tables.replace(Table::Samples, &change, Replacing::Layout).await.expect("is recognised");
    assert_eq!(again, Replaced::Done);
    assert_eq!(tables.refresh(Table::Samples).await.expect("reads").version, Some(5), "no second entry");
    tables.commit(Table::Samples, Vec::new(), mark(9)).await.expect("the writer goes on");
    assert_eq!(tables_over(&store).mark(Table::Samples, "w").await.expect("reads"), Some(9));
}

#[tokio::test]
async fn tags_survive_a_checkpoint() {
    let store = memory_store();
    let tables = with_blocks(&store, 2).await;
    let change = layout(&blocks(&tables).await, merged(&tables, 0..2).await);
    let _ = tables.replace(Table::Samples, &change, Replacing::Layout).await.expect("replaces");
    let order = blocks(&tables).await[0].order;
    assert!(order.first < order.last);
    for sequence in 3..=40 {
        tables.commit(Table::Samples, Vec::new(), mark(sequence)).await.expect("commits");
    }
    assert_eq!(blocks(&tables_over(&store)).await[0].order, order);
}

/// The library lets two removals of one block land when neither changes data; then its rows would be there twice.
#[tokio::test]
async fn of_two_replacements_of_one_block_one_lands() {
    let store = memory_store();
    let first = with_blocks(&store, 3).await;
    let second = tables_over(&store);
    let before = blocks(&second).await;
    let (one, other) = (merged(&first, 0..2).await, merged(&second, 1..3).await);
    let done = first.replace(Table::Samples, &layout(&before[..2], one), Replacing::Layout).await.expect("replaces");
    assert_eq!(done, Replaced::Done);
    let late = second.replace(Table::Samples, &layout(&before[1..], other), Replacing::Layout).await.expect("answers");
    assert_eq!(late, Replaced::Conflict(vec![before[1].path.clone()]));
    assert_eq!(times_and_values(&second).await, [(0, 0.0), (1, 1.0), (2, 2.0)]);
    let rest = blocks(&second).await;
    assert_eq!(rest.iter().map(|block| block.rows).sum::<u64>(), 3);
}

#[tokio::test]
async fn a_replacement_does_not_mind_appends_of_others() {
    let store = memory_store();
    let tables = with_blocks(&store, 2).await;
    let before = blocks(&tables).await;
    let other = tables_over(&store);
    let appended = write(&other, Table::Samples, &samples(&[(1, 7, 7.0)])).await;
    other.commit(Table::Samples, appended, Mark { writer: "v", sequence: 1 }).await.expect("commits");
    let change = layout(&before, merged(&tables, 0..2).await);
    let done = tables.replace(Table::Samples, &change, Replacing::Layout).await.expect("replaces");
    assert_eq!(done, Replaced::Done);
    assert_eq!(times_and_values(&tables).await, [(0, 0.0), (1, 1.0), (7, 7.0)]);
    // The other, which has not seen it, appends again.
    let appended = write(&other, Table::Samples, &samples(&[(1, 8, 8.0)])).await;
    other.commit(Table::Samples, appended, Mark { writer: "v", sequence: 2 }).await.expect("commits");
    assert_eq!(times_and_values(&other).await, [(0, 0.0), (1, 1.0), (7, 7.0), (8, 8.0)]);
    let places: Vec<Order> = blocks(&other).await.iter().map(|block| block.order).collect();
    assert!(places.is_sorted_by(|a, b| a.last < b.first), "{places:?}");
}

#[tokio::test]
async fn rows_may_go_and_only_then() {
    let store = memory_store();
    let tables = with_blocks(&store, 3).await;
    let before = blocks(&tables).await;
    let less = layout(&before, merged(&tables, 0..2).await);
    let refused = tables.replace(Table::Samples, &less, Replacing::Layout).await.expect_err("the last time is lost");
    assert_eq!(refused.kind(), Kind::Bug, "{refused}");
    let ends = write(&tables, Table::Samples, &samples(&[(1, 0, 0.0), (1, 2, 2.0)])).await;
    let apart = layout(&[Arc::clone(&before[0]), Arc::clone(&before[2])], ends);
    let refused = tables.replace(Table::Samples, &apart, Replacing::Layout).await.expect_err("no neighbours");
    assert_eq!(refused.kind(), Kind::Bug, "{refused}");
    assert_eq!(blocks(&tables).await, before);
    let gone = layout(&[Arc::clone(&before[0]), Arc::clone(&before[2])], Vec::new());
    for _ in 0..2 {
        let done = tables.replace(Table::Samples, &gone, Replacing::Rows).await.expect("removes");
        assert_eq!(done, Replaced::Done, "the second time nothing is left to do");
    }
    assert_eq!(times_and_values(&tables).await, [(1, 1.0)]);
}

/// Of two values at one time the one that came first stays, also when younger blocks were merged and the clock stood.
#[tokio::test]
async fn the_older_row_stays_after_a_replacement() {
    let store = memory_store();
    let tables = tables_over(&store);
    for (sequence, value) in [(1, 5.0), (2, 6.0), (3, 7.0), (4, 8.0)] {
        let blocks = write(&tables, Table::Samples, &samples(&[(1, 0, value)])).await;
        tables.commit(Table::Samples, blocks, mark(sequence)).await.expect("commits");
    }
    assert_eq!(times_and_values(&tables).await, [(0, 5.0)]);
    let before = blocks(&tables).await;
    for (run, stays) in [(1..3, 6.0), (0..2, 5.0)] {
        let now = blocks(&tables).await;
        let new = write(&tables, Table::Samples, &samples(&[(1, 0, stays)])).await;
        let done = tables.replace(Table::Samples, &layout(&now[run], new), Replacing::Layout).await.expect("replaces");
        assert_eq!(done, Replaced::Done);
        for tables in [Arc::clone(&tables), tables_over(&store)] {
            assert_eq!(times_and_values(&tables).await, [(0, 5.0)]);
        }
    }
    assert_eq!(blocks(&tables).await.last().expect("stays").path, before[3].path);
}

#[tokio::test]
async fn a_replacement_whose_answer_was_lost_may_be_repeated() {
    let faulty = Arc::new(FaultyStore::new(Arc::new(InMemory::new())));
    let store = Arc::new(Store::over(faulty.clone(), "memory://"));
    let tables = with_blocks(&store, 4).await;
    for round in 0..2 {
        let before = blocks(&tables).await;
        let change = layout(&before[..2], merged(&tables, 0..2 + round).await);
        faulty.inject(Fault::lose_response(Operation::Put, "_delta_log"));
        for _ in 0..3 {
            faulty.inject(Fault::fail(Operation::Get, "_delta_log"));
        }
        let mut failures = 0;
        loop {
            match tables.replace(Table::Samples, &change, Replacing::Layout).await {
                Ok(done) => break assert_eq!(done, Replaced::Done),
                Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
            }
            failures += 1;
            assert!(failures < 10);
        }
        assert!(failures > 0);
        for tables in [Arc::clone(&tables), tables_over(&store)] {
            assert_eq!(times_and_values(&tables).await, [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]);
        }
    }
}
