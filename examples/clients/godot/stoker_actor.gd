class_name StokerActor
extends Node
## A client of `stoker serve` for Godot 4. Add it to the scene; one node is one actor.
##
##     await actor.connect_to("http://127.0.0.1:8000", "npc-7", token)
##     var action = await actor.start([0.1, 0.0])
##     action = await actor.step([0.2, 0.1], 1.0, false, false)
##     await actor.close()
##
## Each step is numbered. The client keeps a record until the server has it on disk, and sends it again after a
## cut connection or a restart of the server. So every step is learned exactly once.

const ANSWERS := ["gap", "training-done", "unknown-actor"]  ## problems that say how to go on
const MOST_RECORDS := 256   ## in one message
const MOST_KEPT := 10000    ## then it waits for the server's disk

var is_done := false        ## whether the training has ended

var _http := HTTPRequest.new()
var _url := ""
var _name := ""
var _headers := PackedStringArray(["Content-Type: application/json"])
var _seq := 0               # the number of the last record
var _kept: Array = []       # the records that are not on the server's disk yet
var _action: Variant = null # the last action, with the server's memo about it
var _memo: Variant = null


func _ready() -> void:
	_http.timeout = 30.0
	add_child(_http)


## Continue the stream of this name, also after a restart of the game.
func connect_to(url: String, actor_name: String, token := "") -> void:
	_url = url
	_name = actor_name
	if token:
		_headers.append("Authorization: Bearer " + token)
	var known: Dictionary = await _request(HTTPClient.METHOD_GET, "/v1/actors/" + _name.uri_encode(), {})
	_seq = int(known["answer"]["next"]) - 1 if known.has("answer") else 0


## Begin an episode. Returns its first action.
func start(observation: Array) -> Variant:
	return await _send({"start": true, "observation": observation})


## Send what the last action led to. Returns the next action; null at the end of an episode.
func step(observation: Array, reward: float, terminated: bool, truncated: bool) -> Variant:
	return await _send({
		"action": _action,
		"memo": _memo,
		"reward": reward,
		"observation": observation,
		"terminated": terminated,
		"truncated": truncated,
	})


## Return when all records are on the server's disk.
func close() -> void:
	while not _kept.is_empty() and not is_done and not (await _post(0, "durable")).is_empty():
		pass


func _send(fields: Dictionary) -> Variant:
	_seq += 1
	var record := {"actor": _name, "seq": _seq}
	record.merge(fields)
	_kept.append(record)
	var answer: Dictionary = await _post(_seq, "durable" if _kept.size() > MOST_KEPT else "accepted")
	while not answer.is_empty() and answer["next"] <= _seq and not is_done:
		answer = await _post(answer["next"], "accepted")  # the server was restarted
	if answer.is_empty():
		_seq -= 1  # the record was refused, and its number is free for another one
		_kept.pop_back()
	_action = answer.get("action")
	_memo = answer.get("memo")
	return _action


func _post(from: int, ack: String) -> Dictionary:
	var steps := _kept.filter(func(record): return record["seq"] >= from).slice(0, MOST_RECORDS)
	var answer: Dictionary = await _request(HTTPClient.METHOD_POST, "/v1/step", {"steps": steps, "ack": ack})
	if not answer.has("actors"):
		return {}
	var mine: Dictionary = answer["actors"][_name]
	is_done = answer.get("training") == "done" or _kind_of(answer) == "training-done"
	_kept = _kept.filter(func(record): return record["seq"] > mine["durable"])
	if mine["next"] > _seq + 1:
		return _give_up("another client plays " + _name)
	if not _kept.is_empty() and mine["next"] < _kept[0]["seq"]:
		return _give_up("the server has lost its run")
	return mine


func _request(method: HTTPClient.Method, path: String, body: Dictionary) -> Dictionary:
	var wait := 0.02
	while true:
		var text := JSON.stringify(body) if method == HTTPClient.METHOD_POST else ""
		var error := _http.request(_url + path, _headers, method, text)
		if error == OK:
			var reply: Array = await _http.request_completed  # result, status, headers, body
			var status: int = reply[1]
			var answer: Variant = JSON.parse_string(reply[3].get_string_from_utf8())
			if reply[0] == HTTPRequest.RESULT_SUCCESS and answer is Dictionary:
				if status < 300 or ANSWERS.has(_kind_of(answer)):
					return answer
				if status != 429 and status < 500:
					push_error("%s: %s" % [answer.get("title"), answer.get("detail")])
					return {}
		# Full, starting, cut or timed out: the same request again is harmless.
		await get_tree().create_timer(wait).timeout
		wait = min(2.0 * wait, 5.0)
	return {}


## The last part of a problem's type, such as "gap" of "urn:stoker:problem:gap".
func _kind_of(answer: Dictionary) -> String:
	return str(answer.get("type", "")).get_slice(":", 3)


func _give_up(why: String) -> Dictionary:
	push_error(why)
	is_done = true
	return {}
