// A client of `stoker serve` for .NET 8 and engines with HttpClient.
//
//   var actor = await StokerActor.ConnectAsync("http://127.0.0.1:8000", "npc-7", token);
//   JsonNode? action = await actor.StartAsync([0.1, 0.0]);
//   action = await actor.StepAsync([0.2, 0.1], reward: 1.0, terminated: false, truncated: false);
//   await actor.CloseAsync();
//
// Each step is numbered. The client keeps a record until the server has it on disk, and sends it again after a
// cut connection or a restart of the server. So every step is learned exactly once.

using System;
using System.Collections.Generic;
using System.Linq;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json.Nodes;
using System.Threading.Tasks;

public sealed class StokerActor
{
    private static readonly string[] Answers = { "gap", "training-done", "unknown-actor" };   // how to go on
    private const int MostRecords = 256;   // in one message
    private const int MostKept = 10_000;   // then it waits for the server's disk

    private readonly HttpClient _http;
    private readonly string _name;
    private readonly List<JsonObject> _kept = new();   // the records that are not on the server's disk yet
    private long _seq;                                 // the number of the last record
    private JsonNode? _action, _memo;                  // the last action, with the server's memo about it

    /// <summary>Whether the training has ended.</summary>
    public bool IsDone { get; private set; }

    private StokerActor(string url, string name, string? token)
    {
        _http = new HttpClient { BaseAddress = new Uri(url), Timeout = TimeSpan.FromSeconds(30) };
        if (token != null) _http.DefaultRequestHeaders.Authorization = new AuthenticationHeaderValue("Bearer", token);
        _name = name;
    }

    /// <summary>Continue the stream of this name, also after a restart of this program.</summary>
    public static async Task<StokerActor> ConnectAsync(string url, string name, string? token = null)
    {
        var actor = new StokerActor(url, name, token);
        var known = await actor.RequestAsync(HttpMethod.Get, "/v1/actors/" + Uri.EscapeDataString(name), null);
        actor._seq = ((long?)known["answer"]?["next"] ?? 1) - 1;
        return actor;
    }

    /// <summary>Begin an episode. Returns its first action.</summary>
    public Task<JsonNode?> StartAsync(double[] observation) =>
        SendAsync(new JsonObject { ["start"] = true, ["observation"] = Numbers(observation) });

    /// <summary>Send what the last action led to. Returns the next action; null at the end of an episode.</summary>
    public Task<JsonNode?> StepAsync(double[] observation, double reward, bool terminated, bool truncated) =>
        SendAsync(new JsonObject
        {
            ["action"] = _action?.DeepClone(),
            ["memo"] = _memo?.DeepClone(),
            ["reward"] = reward,
            ["observation"] = Numbers(observation),
            ["terminated"] = terminated,
            ["truncated"] = truncated,
        });

    /// <summary>Return when all records are on the server's disk.</summary>
    public async Task CloseAsync()
    {
        while (_kept.Count > 0 && !IsDone) await PostAsync(0, "durable");
    }

    private async Task<JsonNode?> SendAsync(JsonObject fields)
    {
        var record = new JsonObject { ["actor"] = _name, ["seq"] = ++_seq };
        foreach (var (key, value) in fields) record[key] = value?.DeepClone();
        _kept.Add(record);
        try
        {
            var answer = await PostAsync(_seq, _kept.Count > MostKept ? "durable" : "accepted");
            while ((long)answer["next"]! <= _seq && !IsDone)
                answer = await PostAsync((long)answer["next"]!, "accepted");   // the server was restarted
            (_action, _memo) = (answer["action"], answer["memo"]);
            return _action;
        }
        catch
        {
            _seq--;   // the record was refused, and its number is free for another one
            _kept.Remove(record);
            throw;
        }
    }

    private async Task<JsonNode> PostAsync(long from, string ack)
    {
        var records = _kept.Where(record => (long)record["seq"]! >= from).Take(MostRecords);
        var steps = new JsonArray(records.Select(record => record.DeepClone()).ToArray());
        var body = new JsonObject { ["steps"] = steps, ["ack"] = ack };
        var answer = await RequestAsync(HttpMethod.Post, "/v1/step", body);
        var mine = answer["actors"]![_name]!;
        IsDone = (string?)answer["training"] == "done" || KindOf(answer) == "training-done";
        if ((long)mine["next"]! > _seq + 1) throw new InvalidOperationException($"another client plays {_name}");
        _kept.RemoveAll(record => (long)record["seq"]! <= (long)mine["durable"]!);
        if (_kept.Count > 0 && (long)mine["next"]! < (long)_kept[0]["seq"]!)
            throw new InvalidOperationException("the server has lost its run");
        return mine;
    }

    private async Task<JsonNode> RequestAsync(HttpMethod method, string path, JsonObject? body)
    {
        for (var wait = TimeSpan.FromMilliseconds(20); ; wait = wait * 2 < TimeSpan.FromSeconds(5) ? wait * 2 : wait)
        {
            var pause = wait;
            try
            {
                var request = new HttpRequestMessage(method, path);
                if (body != null)
                    request.Content = new StringContent(body.ToJsonString(), Encoding.UTF8, "application/json");
                using var response = await _http.SendAsync(request);
                var answer = JsonNode.Parse(await response.Content.ReadAsStringAsync())!;
                if (response.IsSuccessStatusCode || Answers.Contains(KindOf(answer))) return answer;
                var status = (int)response.StatusCode;
                if (status != 429 && status < 500)
                    throw new InvalidOperationException($"{answer["title"]}: {answer["detail"]}");
                if (response.Headers.RetryAfter?.Delta is { } asked && asked > pause) pause = asked;
            }
            catch (Exception error) when (error is HttpRequestException or TaskCanceledException) { }
            // Full, starting, cut or timed out: the same request again is harmless.
            await Task.Delay(pause);
        }
    }

    /// <summary>The last part of a problem's type, such as "gap" of "urn:stoker:problem:gap".</summary>
    private static string? KindOf(JsonNode answer) => ((string?)answer["type"])?.Split(':').Last();

    private static JsonArray Numbers(double[] values) => new(values.Select(value => (JsonNode)value).ToArray());
}
