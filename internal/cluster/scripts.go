package cluster

import "postern/internal/store"

// The sessions of an origin are a hash: each gateway has a field with how many it has, the number of what it said last,
// that of its last word (tellScript), and when its lease ends; "rate" has when the origin will have used up no more than it
// may (GCRA, as ITU-T I.371 has it). All times are in microseconds. Leases and rates that a clock of now could not have
// made do not count: it was set back, or the server is another one.
var (
	// KEYS: sessions; failures of each ban. ARGV: gateway, number, most sessions, lease, time between two sessions, time that
	// may be saved up; most failures of each ban. Returns a connlimit.Fullness, or first.
	enterScript = store.NewScript(`
		local t = redis.call('TIME'); local now = t[1] * 1000000 + t[2]
		for i = 2, #KEYS do
			if tonumber(redis.call('HGET', KEYS[i], '=') or '0') >= tonumber(ARGV[5 + i]) then return 4 end
		end
		local most, lease, every, saved = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
		local others, mine, number, free = 0, -1, tonumber(ARGV[2]), now
		local word = number -- those before are of sessions that do not count any more
		local all = redis.call('HGETALL', KEYS[1])
		for i = 1, #all, 2 do
			if all[i] == 'rate' then
				free = math.min(math.max(now, tonumber(all[i + 1]) or 0), now + saved + every)
			else
				local n, last, told, ends = string.match(all[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
				ends = tonumber(ends or '0')
				if ends <= now or ends > now + lease then
					redis.call('HDEL', KEYS[1], all[i])
				elseif all[i] == ARGV[1] then
					mine, number, word = tonumber(n), math.max(number, tonumber(last)), tonumber(told)
				else
					others = others + n
				end
			end
		end
		if every > 0 and free - now > saved then return 3 end
		if most > 0 and others + math.max(mine, 0) + 1 > most then return 2 end
		local life = 0
		if every > 0 then
			redis.call('HSET', KEYS[1], 'rate', string.format('%.0f', free + every))
			life = free + every - now
		end
		if most > 0 then
			redis.call('HSET', KEYS[1], ARGV[1],
				string.format('%.0f %.0f %.0f %.0f', math.max(mine, 0) + 1, number, word, now + lease))
			life = math.max(life, lease)
		end
		if life > 0 then redis.call('PEXPIRE', KEYS[1], math.ceil(life / 1000)) end
		return mine < 0 and -1 or 0`)
	// KEYS: sessions. ARGV: gateway, number, its sessions, 1 if it knows for sure that there are no more, those that left since
	// its last word, lease. A session that came since this was said has the higher number. A word that runs twice, or after a
	// later one, says nothing: what left by it may have been taken off already.
	tellScript = store.NewScript(`
		local t = redis.call('TIME'); local now = t[1] * 1000000 + t[2]
		local number, n, lease = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[6])
		local mine, last, told = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+) (%d+) ')
		if mine and number <= tonumber(told) then return tonumber(mine) end
		if mine and (ARGV[4] == '0' or tonumber(last) > number) then n = mine - ARGV[5] end
		if n <= 0 then return redis.call('HDEL', KEYS[1], ARGV[1]) end
		redis.call('HSET', KEYS[1], ARGV[1],
			string.format('%.0f %.0f %.0f %.0f', n, math.max(number, tonumber(last or 0)), number, now + lease))
		if redis.call('PTTL', KEYS[1]) < lease / 1000 then redis.call('PEXPIRE', KEYS[1], math.ceil(lease / 1000)) end
		return n`)
)
