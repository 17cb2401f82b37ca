-- Sends the requests of a file in turn, and notes when each was answered.
--   wrk ... -s wrk.lua URL -- REQUESTS ANSWERS [MARKER]
-- REQUESTS: whole HTTP requests, each after its length in bytes and a newline.
-- ANSWERS: written at the end; the first line says what was counted, each other one is the time of
-- an answer with status 200. MARKER: answers that contain it are counted.

local ffi = require("ffi")
ffi.cdef [[
  typedef struct { long s; long ns; } bench_time;
  int clock_gettime(int clock, bench_time *now);
  void *calloc(size_t n, size_t size);
]]
local MONOTONIC, MAX_ANSWERS, MAX_STATUS = 1, 2000000, 1000
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

-- In C memory, as wrk hands nothing but plain values from a thread to `done`.
local function array(n)
  local address = ffi.C.calloc(n, 8)
  return ffi.cast("double *", address), tonumber(ffi.cast("intptr_t", address))
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  -- wrk asks for one request more, before the first, to see what it looks like.
  requests, sent, answered = {}, -1, 0
  while true do
    local n = file:read("*n")
    if not n then break end
    file:read(1)
    table.insert(requests, file:read(n))
  end
  file:close()
  path, marker = args[2], args[3] or ""
  times, times_at = array(MAX_ANSWERS)
  counts, counts_at = array(MAX_STATUS + 1)
  now = ffi.new("bench_time")
end

function request()
  sent = sent + 1
  return requests[(sent - 1) % #requests + 1]
end

function response(status, headers, body)
  counts[status] = counts[status] + 1
  if status ~= 200 then return end
  ffi.C.clock_gettime(MONOTONIC, now)
  if answered < MAX_ANSWERS then
    times[answered] = tonumber(now.s) + tonumber(now.ns) / 1e9
    answered = answered + 1
  end
  if marker ~= "" and string.find(body, marker, 1, true) then
    counts[0] = counts[0] + 1
  end
end

function done(summary, latency, requests)
  local thread, errors = threads[1], summary.errors
  local times = ffi.cast("double *", thread:get("times_at"))
  local counts = ffi.cast("double *", thread:get("counts_at"))
  local statuses = {}
  for status = 1, MAX_STATUS do
    if counts[status] > 0 then
      table.insert(statuses, string.format('"%d": %d', status, counts[status]))
    end
  end
  local file = assert(io.open(thread:get("path"), "w"))
  file:write(string.format(
    '{"duration_us": %d, "p50_us": %d, "p95_us": %d, "p99_us": %d, "marked": %d, ' ..
    '"connect": %d, "read": %d, "write": %d, "timeout": %d, "statuses": {%s}}\n',
    summary.duration, latency:percentile(50), latency:percentile(95), latency:percentile(99),
    counts[0], errors.connect, errors.read, errors.write, errors.timeout,
    table.concat(statuses, ", ")))
  for i = 0, thread:get("answered") - 1 do
    file:write(string.format("%.6f\n", times[i]))
  end
  file:close()
end
