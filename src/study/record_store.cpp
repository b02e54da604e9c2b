#include "study/record_store.h"

#include <sqlite3.h>

#include "base/error.h"

namespace tandem {
namespace {

constexpr int kApplicationId = 0x746E646D;  // "tndm": how `file` and we tell our databases
constexpr int kSchemaVersion = 1;

constexpr const char* kSchema =
    "CREATE TABLE records ("
    "  id INTEGER PRIMARY KEY,"
    "  study_id TEXT NOT NULL, variant TEXT NOT NULL, kv TEXT NOT NULL, batch INTEGER NOT NULL,"
    "  started_at TEXT NOT NULL, decode_tokens_per_second REAL, peak_resident_bytes INTEGER,"
    "  document TEXT NOT NULL,"
    "  UNIQUE (study_id, variant, kv, batch));"
    "CREATE TABLE quality ("
    "  study_id TEXT NOT NULL, variant TEXT NOT NULL, kv TEXT NOT NULL, document TEXT NOT NULL,"
    "  PRIMARY KEY (study_id, variant, kv));";

}  // namespace

struct RecordStore::Impl {
  std::string name;
  sqlite3* db = nullptr;

  ~Impl() { sqlite3_close(db); }

  [[noreturn]] void refuse(int code) const {
    const int primary = code & 0xFF;
    const bool damaged = primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB;
    fail(damaged ? ErrorKind::bad_file : ErrorKind::system, "{}: {}", name,
         damaged ? std::string("damaged, or not a database (") + sqlite3_errmsg(db) +
                       "); move it away or give another --out"
                 : std::string(sqlite3_errmsg(db)));
  }
  void check(int code) const {
    if (code != SQLITE_OK && code != SQLITE_ROW && code != SQLITE_DONE) refuse(code);
  }
  void execute(const char* sql) const { check(sqlite3_exec(db, sql, nullptr, nullptr, nullptr)); }
};

namespace {

// One prepared statement, its parameters bound in order.
class Statement {
 public:
  template <typename Impl, typename... Values>
  Statement(const Impl& impl, const char* sql, const Values&... values) {
    impl.check(sqlite3_prepare_v2(impl.db, sql, -1, &statement_, nullptr));
    int index = 0;
    (impl.check(bind(++index, values)), ...);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  // True when there is a row.
  template <typename Impl>
  bool step(const Impl& impl) {
    const int code = sqlite3_step(statement_);
    impl.check(code);
    return code == SQLITE_ROW;
  }
  std::string text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
    return bytes == nullptr
               ? std::string()
               : std::string(bytes, static_cast<size_t>(sqlite3_column_bytes(statement_, column)));
  }
  int64_t integer(int column) const { return sqlite3_column_int64(statement_, column); }

 private:
  int bind(int index, const std::string& value) {
    return sqlite3_bind_text(statement_, index, value.data(), static_cast<int>(value.size()),
                             SQLITE_TRANSIENT);
  }
  int bind(int index, int64_t value) { return sqlite3_bind_int64(statement_, index, value); }
  int bind(int index, double value) { return sqlite3_bind_double(statement_, index, value); }

  sqlite3_stmt* statement_ = nullptr;
};

template <typename Impl>
int64_t query_integer(const Impl& impl, const char* sql) {
  Statement statement(impl, sql);
  return statement.step(impl) ? statement.integer(0) : 0;
}

template <typename Impl>
std::string query_text(const Impl& impl, const char* sql) {
  Statement statement(impl, sql);
  return statement.step(impl) ? statement.text(0) : std::string();
}

template <typename Impl>
void open_schema(const Impl& impl) {
  const bool empty = query_integer(impl, "SELECT count(*) FROM sqlite_master") == 0;
  if (empty) {
    // Two processes may both find the file empty: the transaction lets one of them create.
    impl.execute("BEGIN IMMEDIATE");
    if (query_integer(impl, "SELECT count(*) FROM sqlite_master") == 0) {
      impl.execute(fmt::format("PRAGMA application_id = {}; PRAGMA user_version = {}; {}",
                               kApplicationId, kSchemaVersion, kSchema)
                       .c_str());
    }
    impl.execute("COMMIT");
  }
  if (query_integer(impl, "PRAGMA application_id") != kApplicationId) {
    fail(ErrorKind::bad_file, "{}: a database of another program; give another --out", impl.name);
  }
  const int64_t found = query_integer(impl, "PRAGMA user_version");
  if (found != kSchemaVersion) {
    fail(ErrorKind::bad_file, "{}: schema version {}, expected {}; give another --out", impl.name,
         found, kSchemaVersion);
  }
  const std::string state = query_text(impl, "PRAGMA quick_check(1)");
  if (state != "ok") fail(ErrorKind::bad_file, "{}: damaged: {}", impl.name, quote(state, 160));
}

}  // namespace

RecordStore::RecordStore(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->name = path.string();
  impl_->check(sqlite3_open_v2(path.c_str(), &impl_->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                               nullptr));
  sqlite3_busy_timeout(impl_->db, 5000);
  // The schema is looked at before the journal mode is set: a foreign file stays as it was.
  open_schema(*impl_);
  const std::string mode = query_text(*impl_, "PRAGMA journal_mode = WAL");
  if (mode != "wal") {
    fail(ErrorKind::system, "{}: the file system allows no write-ahead log (mode {})", impl_->name,
         quote(mode));
  }
  impl_->execute("PRAGMA synchronous = FULL");
}

RecordStore::~RecordStore() = default;
RecordStore::RecordStore(RecordStore&&) noexcept = default;

bool RecordStore::insert(const Record& record) {
  const double decode = record.decode_tokens_per_second.median();  // SQLite keeps NaN as NULL
  Statement statement(*impl_,
                      "INSERT INTO records (study_id, variant, kv, batch, started_at, "
                      "decode_tokens_per_second, peak_resident_bytes, document) "
                      "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
                      "ON CONFLICT (study_id, variant, kv, batch) DO NOTHING",
                      record.study_id, record.cell.variant, record.cell.kv, record.cell.batch,
                      record.started_at, decode, static_cast<int64_t>(record.peak_resident_bytes),
                      dump_json(to_json(record)));
  statement.step(*impl_);
  return sqlite3_changes(impl_->db) == 1;
}

bool RecordStore::contains(const std::string& study_id, const CellKey& cell) const {
  Statement statement(
      *impl_, "SELECT 1 FROM records WHERE study_id = ? AND variant = ? AND kv = ? AND batch = ?",
      study_id, cell.variant, cell.kv, cell.batch);
  return statement.step(*impl_);
}

void RecordStore::put_quality(const std::string& study_id, const std::string& variant,
                              const std::string& kv, const Quality& quality) {
  Statement statement(
      *impl_,
      "INSERT INTO quality (study_id, variant, kv, document) VALUES (?, ?, ?, ?) "
      "ON CONFLICT (study_id, variant, kv) DO UPDATE SET document = excluded.document",
      study_id, variant, kv, dump_json(to_json(quality)));
  statement.step(*impl_);
}

std::optional<Quality> RecordStore::quality(const std::string& study_id, const std::string& variant,
                                            const std::string& kv) const {
  Statement statement(*impl_,
                      "SELECT document FROM quality WHERE study_id = ? AND variant = ? AND kv = ?",
                      study_id, variant, kv);
  if (!statement.step(*impl_)) return std::nullopt;
  return quality_from_json(parse_json(statement.text(0), impl_->name));
}

std::vector<Record> RecordStore::load(const std::string& study_id) const {
  Statement statement(
      *impl_,
      "SELECT r.document, q.document FROM records r LEFT JOIN quality q "
      "USING (study_id, variant, kv) WHERE ?1 = '' OR r.study_id = ?1 ORDER BY r.id",
      study_id);
  std::vector<Record> records;
  while (statement.step(*impl_)) {
    records.push_back(record_from_json(parse_json(statement.text(0), impl_->name)));
    const std::string quality = statement.text(1);
    if (!quality.empty()) {
      records.back().quality = quality_from_json(parse_json(quality, impl_->name));
    }
  }
  return records;
}

std::string RecordStore::last_study_id() const {
  return query_text(*impl_, "SELECT study_id FROM records ORDER BY id DESC LIMIT 1");
}

void RecordStore::erase(const std::string& study_id) {
  impl_->execute("BEGIN IMMEDIATE");
  Statement records(*impl_, "DELETE FROM records WHERE study_id = ?", study_id);
  records.step(*impl_);
  Statement quality(*impl_, "DELETE FROM quality WHERE study_id = ?", study_id);
  quality.step(*impl_);
  impl_->execute("COMMIT");
}

}  // namespace tandem
