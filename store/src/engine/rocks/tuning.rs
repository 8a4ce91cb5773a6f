//! How the databases are tuned, and why. Measurements behind the numbers are in the book (docs, "Facts measured").
//!
//! Memory is bounded per disk, not per family: one block cache, which also holds index and filter blocks, one bound for
//! the memtables of the state, and small ones for the log. Background work is bounded in jobs and in bytes a second, so
//! that a burst of writes does not stall the commits that follow it.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, DataBlockIndexType, Error,
    LogLevel, Options, WriteBufferManager,
};

use crate::engine::{Family, Purpose};
use crate::keys;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Data, index and filter blocks of all databases of a disk. Half a million tasks that recur after always the same time
/// fire in any order as fast as with 16 or 64 MiB (the system keeps the files in its own cache), and a node with ten
/// million tasks is hardly larger than one with a hundred thousand. Those that recur by the calendar would gain from
/// more.
const BLOCK_CACHE_BYTES: usize = 8 * MIB;

/// Memtables of all state databases of a disk together. RocksDB flushes at seven eighths of it. The log is not counted:
/// it would be flushed in crumbs whenever the state has come near the bound.
const STATE_MEMTABLES_BYTES: usize = 48 * MIB;

/// One memtable of the state. On random keys larger ones are slower: 64 MB was three times as fast as 256 MB.
const STATE_MEMTABLE_BYTES: usize = 32 * MIB;

/// One memtable of the log. Its keys are in order and its tail is cached beside it, so a large one has no use.
const LOG_MEMTABLE_BYTES: usize = 16 * MIB;

/// Files opened at one time by each database; their index blocks live in the cache.
const OPEN_FILES: i32 = 256;

/// Flushes and compactions running at one time in each database.
const BACKGROUND_JOBS: i32 = 2;

/// Bound of flush and compaction writes of each database, flushes first. It is fixed: the self-tuning limiter went down
/// to a twentieth in quiet times, and the flush at the next burst then held up writers for two seconds.
const BACKGROUND_BYTES_PER_SECOND: i64 = 96 << 20;
const BACKGROUND_REFILL_MICROSECONDS: i64 = 100_000;
const BACKGROUND_FAIRNESS: i32 = 10;

/// The log is cut from the front by snapshots; more of it than this makes RocksDB flush so that it can drop the rest.
const WAL_BYTES: u64 = 128 << 20;

/// Rows of the state that are read, and packed, together. Larger blocks are cheaper to write, merge and scan, and dearer
/// where single rows are wanted that are not in the cache: fires of half a million recurring tasks read their rows and
/// definitions in any order, and half as fast with twice as much.
const BLOCK_BYTES: usize = 16 << 10;
const BLOCK_BYTES_OF_SINGLE_ROWS: usize = 4 << 10;
const SINGLE_ROWS: [Family; 2] = [keys::TASKS, keys::SPECS];

/// Index and filter of a file are cut into blocks too. Whole, they are up to 110 kB a file: reading one row from a file
/// that was not in the cache pushed out as much as thirty blocks of rows, and such large pieces that come and go leave
/// holes in the heap, half as large as the cache itself.
const BLOCK_BYTES_OF_METADATA: usize = 4 << 10;

/// A row in a block of those families is found by its hash: so full is the table of hashes.
const HASHED_ROWS_RATIO: f64 = 0.75;

/// The part of a memtable of tasks that is a Bloom filter: most tasks that fire were last written long ago, and to
/// search a list of 300,000 rows for what is not there was a seventh of what it cost to apply their fires.
const TASKS_FILTER_RATIO: f64 = 0.1;

/// Files of level 0 at which they are merged into the next. Below it every flush soon costs a rewrite of what it overlaps
/// (4: a fifth fewer fires in a burst of a million), above it reads look into too many files (12: half as many).
const LEVEL_ZERO_FILES: i32 = 8;

/// A file of the last level is not rewritten merely to clear its rows of the sequence numbers that snapshots needed until
/// it is this old, in seconds. Rows are written in the order of their keys and their files moved down as they are, and
/// each commit ends a snapshot: RocksDB rewrote every file at once, 50 of 63 merges under a load of batches. (No setter
/// for it: RocksDB's name of the option.)
const LAST_LEVEL_REWRITE: &str = "bottommost_file_compaction_delay=600";

/// A file in which this many of [`DELETIONS_WINDOW`] rows in a row, or half of all, are deletions is compacted soon:
/// scans over a family whose rows are short-lived would wade through them.
const DELETIONS_TRIGGER: usize = 2_048;
const DELETIONS_WINDOW: usize = 4_096;
const DELETIONS_RATIO: f64 = 0.5;

/// The memory that the databases of a disk share.
pub struct Memory {
    blocks: Cache,
    memtables: WriteBufferManager,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            blocks: Cache::new_lru_cache(BLOCK_CACHE_BYTES),
            // No stall at the bound: a flush begins below it, and a stalled commit would cost more than the excess.
            memtables: WriteBufferManager::new_write_buffer_manager(STATE_MEMTABLES_BYTES, false),
        }
    }
}

pub fn database_options(purpose: Purpose, memory: &Memory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);

    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_ratelimiter(BACKGROUND_BYTES_PER_SECOND, BACKGROUND_REFILL_MICROSECONDS, BACKGROUND_FAIRNESS);
    options.set_bytes_per_sync(MIB as u64);

    // RocksDB's own log says little and stays small.
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(MIB);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);

    match purpose {
        Purpose::Log => {
            // A power cut leaves a torn record at the very end, which is dropped: nobody was told that it is durable.
            // Anything wrong before that is an error, because dropping it could drop what was acknowledged.
            options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
            options.set_track_and_verify_wals_in_manifest(true);
            options.set_max_total_wal_size(WAL_BYTES);
        }
        Purpose::State => {
            options.set_atomic_flush(true);
            options.set_write_buffer_manager(&memory.memtables);
        }
    }
    options
}

/// Of the family of this name.
pub fn family_options(name: &str, purpose: Purpose, memory: &Memory) -> Result<Options, Error> {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&memory.blocks);
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    // Those of files of level 0 are not pinned: they would stay so when their files are moved down unchanged, as those
    // of tasks that are put in batches are. With ten million tasks they took 27 MiB, whatever the bound.
    blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    blocks.set_partition_filters(true);
    blocks.set_metadata_block_size(BLOCK_BYTES_OF_METADATA);

    let mut options = Options::default().get_options_from_string(LAST_LEVEL_REWRITE)?;
    options.set_max_write_buffer_number(3);
    options.set_target_file_size_base(32 * MIB as u64);
    options.set_max_bytes_for_level_base(256 * MIB as u64);
    options.set_level_compaction_dynamic_level_bytes(true);

    // When writes are slowed, and when they are stopped, if compaction does not keep up.
    options.set_level_zero_file_num_compaction_trigger(LEVEL_ZERO_FILES);
    options.set_level_zero_slowdown_writes_trigger(20);
    options.set_level_zero_stop_writes_trigger(36);
    options.set_soft_pending_compaction_bytes_limit(8 * GIB);
    options.set_hard_pending_compaction_bytes_limit(32 * GIB);

    match purpose {
        // Read back within seconds, mostly from memory, then deleted: compressing it would be wasted.
        Purpose::Log => {
            options.set_compression_type(DBCompressionType::None);
            options.set_write_buffer_size(LOG_MEMTABLE_BYTES);
        }
        Purpose::State => {
            options.set_write_buffer_size(STATE_MEMTABLE_BYTES);
            options.set_compression_type(DBCompressionType::Lz4);
            if SINGLE_ROWS.iter().any(|family| family.0 == name) {
                blocks.set_block_size(BLOCK_BYTES_OF_SINGLE_ROWS);
                blocks.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
                blocks.set_data_block_hash_ratio(HASHED_ROWS_RATIO);
            } else {
                blocks.set_block_size(BLOCK_BYTES);
            }
            if name == keys::TASKS.0 {
                options.set_memtable_prefix_bloom_ratio(TASKS_FILTER_RATIO);
                options.set_memtable_whole_key_filtering(true);
            }
            blocks.set_bloom_filter(10.0, false);
            blocks.set_optimize_filters_for_memory(true);
            options.add_compact_on_deletion_collector_factory(DELETIONS_WINDOW, DELETIONS_TRIGGER, DELETIONS_RATIO);
        }
    }
    options.set_block_based_table_factory(&blocks);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rocksdb::{ColumnFamilyDescriptor, DB, properties};

    #[test]
    fn no_block_stays_in_the_cache_for_good() {
        const ROWS: u32 = 100_000;
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        let name = keys::TASKS.0;
        let family = ColumnFamilyDescriptor::new(name, family_options(name, Purpose::State, &memory).unwrap());
        let options = database_options(Purpose::State, &memory);
        let db = DB::open_cf_descriptors(&options, directory.path(), [family]).unwrap();
        let family = db.cf_handle(name).unwrap();
        for row in 0..ROWS {
            db.put_cf(family, row.to_be_bytes(), [7; 32]).unwrap();
        }
        db.flush_cf(family).unwrap();
        assert_eq!(db.get_cf(family, [0; 4]).unwrap().as_deref(), Some(&[7; 32][..]));
        let property = |name| db.property_int_value_cf(family, name).unwrap().unwrap();
        assert!(property(properties::BLOCK_CACHE_USAGE) > 0);
        // A filter takes ten bits a row. The table of what is in its parts stays, and that of the index.
        let pinned = property(properties::BLOCK_CACHE_PINNED_USAGE);
        assert!(pinned < u64::from(ROWS) * 10 / 8 / 4, "{pinned} bytes are pinned");
    }
}
