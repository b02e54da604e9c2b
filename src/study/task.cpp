#include "study/task.h"

#include <cstring>

#include "base/error.h"
#include "base/file.h"

namespace tandem {

Json to_json(const Task& task) {
  Json random;  // null: a checkpoint on disk
  if (task.random) {
    random = {{"encoding", task.random->encoding}, {"lm_head", task.random->lm_head}};
  }
  return {{"is_quality", task.is_quality},
          {"random", random},
          {"checkpoint", task.checkpoint.string()},
          {"baseline", task.baseline.string()},
          {"is_baseline", task.is_baseline},
          {"tokens_path", task.tokens_path.string()},
          {"kv", task.kv},
          {"questions",
           {{"name", task.questions.name},
            {"path", task.questions.path},
            {"max_items", task.questions.max_items}}},
          {"num_warmups", task.num_warmups},
          {"num_runs", task.num_runs},
          {"max_reruns", task.max_reruns},
          {"num_windows", task.num_windows},
          {"answer_tokens", task.answer_tokens},
          {"power_command", task.meter.power_command},
          {"gpu_pci_address", task.meter.gpu_pci_address},
          {"energy_work_seconds", task.energy.work_seconds},
          {"energy_idle_seconds", task.energy.idle_seconds},
          {"record", to_json(task.record)}};
}

Task task_from_json(const Json& json) {
  try {
    Task task;
    json.at("is_quality").get_to(task.is_quality);
    if (const Json& random = json.at("random"); !random.is_null()) {
      task.random = {random.at("encoding").get<std::string>(),
                     random.at("lm_head").get<std::string>()};
    }
    task.checkpoint = json.at("checkpoint").get<std::string>();
    task.baseline = json.at("baseline").get<std::string>();
    json.at("is_baseline").get_to(task.is_baseline);
    task.tokens_path = json.at("tokens_path").get<std::string>();
    json.at("kv").get_to(task.kv);
    const Json& questions = json.at("questions");
    questions.at("name").get_to(task.questions.name);
    questions.at("path").get_to(task.questions.path);
    questions.at("max_items").get_to(task.questions.max_items);
    json.at("num_warmups").get_to(task.num_warmups);
    json.at("num_runs").get_to(task.num_runs);
    json.at("max_reruns").get_to(task.max_reruns);
    json.at("num_windows").get_to(task.num_windows);
    json.at("answer_tokens").get_to(task.answer_tokens);
    json.at("power_command").get_to(task.meter.power_command);
    json.at("gpu_pci_address").get_to(task.meter.gpu_pci_address);
    json.at("energy_work_seconds").get_to(task.energy.work_seconds);
    json.at("energy_idle_seconds").get_to(task.energy.idle_seconds);
    task.record = record_from_json(json.at("record"));
    return task;
  } catch (const Json::exception& error) {
    fail(ErrorKind::usage, "study task: {}", quote(error.what(), 160));
  }
}

Json to_json(const QualityByKv& qualities) {
  Json json = Json::object();
  for (const auto& [kv, quality] : qualities) json[kv] = to_json(quality);
  return json;
}

QualityByKv qualities_from_json(const Json& json) {
  QualityByKv qualities;
  for (const auto& item : json.items()) qualities[item.key()] = quality_from_json(item.value());
  return qualities;
}

KvType kv_type_of(const std::string& name) {
  for (const KvType type : kKvTypes) {
    if (type != KvType::f32 && name == kv_type_name(type)) return type;
  }
  fail(ErrorKind::usage, "--kv: found {}, expected bf16, int8, fp8 or int4", quote(name));
}

void write_tokens(const std::filesystem::path& path, const std::vector<int32_t>& tokens) {
  write_file_atomic(path, std::string_view(reinterpret_cast<const char*>(tokens.data()),
                                           tokens.size() * sizeof(int32_t)));
}

std::vector<int32_t> read_tokens(const std::filesystem::path& path) {
  const std::string bytes = read_text_file(path, uint64_t{1} << 30);
  if (bytes.size() % sizeof(int32_t) != 0) {
    fail(ErrorKind::bad_file, "{}: {} bytes, expected a multiple of 4", path.string(),
         bytes.size());
  }
  std::vector<int32_t> tokens(bytes.size() / sizeof(int32_t));
  std::memcpy(tokens.data(), bytes.data(), bytes.size());
  return tokens;
}

std::string run_task(const std::string& task_json) {
  const Task task = task_from_json(parse_json(task_json, "study task"));
  return dump_json(task.is_quality ? to_json(measure_quality(task)) : to_json(measure_speed(task)));
}

}  // namespace tandem
