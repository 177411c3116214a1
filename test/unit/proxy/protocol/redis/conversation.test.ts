import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RedisCells } from '../../../../../proxy/protocol/redis/cells.ts'
import { Conversation } from '../../../../../proxy/protocol/redis/conversation.ts'

const told: string[] = []
const host = {
  onResetting: () => told.push('resetting'),
  onLoggingIn: () => told.push('logging in'),
  onReset: () => told.push('reset'),
  onResetRefused: () => told.push('reset refused'),
  onOursRefused: () => told.push('ours refused'),
  onNotTheOne: () => told.push('not the one'),
}

/** A conversation in which lines are said by the application, and by the server. */
function talk() {
  told.length = 0
  const conversation = new Conversation(new RedisCells(), host)
  const { commands } = conversation
  const say = (...lines: string[]) => {
    const bytes = Buffer.from(lines.map((line) => `${line}\r\n`).join(''))
    for (let at = 0; at < bytes.length; ) {
      at = commands.run(bytes, at, bytes.length, conversation)
      if (commands.stop !== 'gathered') break
      conversation.onGathered(commands.command, commands.args, null)
      at = commands.next
    }
  }
  const answer = (...replies: string[]) => {
    const bytes = Buffer.from(replies.map((reply) => `${reply}\r\n`).join(''))
    conversation.replies.run(bytes, 0, bytes.length, conversation)
  }
  return { conversation, say, answer }
}

const confirmation = (kind: string, count: number) => `*3\r\n$${kind.length}\r\n${kind}\r\n$1\r\na\r\n:${count}`

describe('Conversation', () => {
  it('can be moved between commands, and with what RESET has taken back', () => {
    const { conversation, say, answer } = talk()
    say('SELECT 1', 'WATCH a', 'CLIENT TRACKING on')
    assert.ok(!conversation.canMove)
    answer('+OK', '+OK', '+OK')
    assert.ok(!conversation.canMove)
    say('RESET')
    answer('+RESET')
    assert.deepEqual(told, ['resetting', 'reset'])
    assert.ok(conversation.canMove)
    assert.deepEqual(conversation.begin(), [])
  })

  it('tells a new connection what commands have changed that succeeded', () => {
    const { conversation, say, answer } = talk()
    say('SELECT 1', 'SELECT 99', 'CLIENT SETNAME web')
    answer('+OK', '-ERR DB index is out of range', '+OK')
    const said = conversation.begin().map(({ command }) =>
      command
        .toString()
        .split('\r\n')
        .filter((_, at) => at > 0 && at % 2 === 0),
    )
    assert.deepEqual(said, [
      ['SELECT', '1'],
      ['CLIENT', 'SETNAME', 'web'],
    ])
  })

  it('tells a new connection what newer servers let a connection say of itself, as it said it last', () => {
    const { conversation, say, answer } = talk()
    say('CLIENT CAPA redirect', 'CLIENT MAINT_NOTIFICATIONS ON', 'CLIENT MAINT_NOTIFICATIONS OFF', 'CLIENT NO-TOUCH ON')
    answer('+OK', '+OK', '+OK', '-ERR unknown subcommand')
    assert.ok(conversation.canMove)
    const said = conversation.begin().map(({ command, isVital }) => [command.toString().split('\r\n').at(-2), isVital])
    assert.deepEqual(said, [
      ['redirect', false],
      ['OFF', false],
    ])
  })

  it('is in a transaction from MULTI to EXEC, and not where the server refuses MULTI', () => {
    const { conversation, say, answer } = talk()
    say('MULTI', 'MULTI')
    answer('+OK', '-ERR MULTI calls can not be nested')
    assert.ok(conversation.isBusy && !conversation.canMove)
    say('EXEC x')
    answer('-ERR wrong number of arguments')
    assert.ok(conversation.isInMulti)
    say('EXEC')
    answer('-EXECABORT Transaction discarded because of previous errors.')
    assert.ok(conversation.canMove && !conversation.isBusy)
    say('MULTI x', 'MULTI')
    answer('-ERR wrong number of arguments', "-ERR Can't execute 'multi'")
    assert.ok(conversation.canMove && !conversation.isBusy)
  })

  it('watches until a transaction ends, not until an EXEC that is refused', () => {
    const { conversation, say, answer } = talk()
    say('WATCH', 'EXEC')
    answer('-ERR wrong number of arguments', '-ERR EXEC without MULTI')
    assert.ok(conversation.canMove)
    say('WATCH a', 'EXEC')
    answer('+OK', '-ERR EXEC without MULTI')
    assert.ok(!conversation.canMove)
    say('MULTI', 'EXEC')
    answer('+OK', '*0')
    assert.ok(conversation.canMove)
  })

  it('keeps channels apart from sharded channels, which are counted for themselves', () => {
    const { conversation, say, answer } = talk()
    say('SUBSCRIBE a', 'SSUBSCRIBE a', 'SUNSUBSCRIBE a')
    answer(confirmation('subscribe', 1), confirmation('ssubscribe', 1), confirmation('sunsubscribe', 0))
    assert.ok(conversation.isAnswered && !conversation.canMove)
    say('UNSUBSCRIBE a')
    answer(confirmation('unsubscribe', 0))
    assert.ok(conversation.canMove)
  })

  it('ends UNSUBSCRIBE without names after as many confirmations as there were channels, whatever patterns are left', () => {
    const { conversation, say, answer } = talk()
    say('SUBSCRIBE a b', 'PSUBSCRIBE a')
    answer(confirmation('subscribe', 1), confirmation('subscribe', 2), confirmation('psubscribe', 3))
    say('UNSUBSCRIBE')
    answer(confirmation('unsubscribe', 2))
    assert.ok(conversation.isWaiting)
    answer(confirmation('unsubscribe', 1))
    assert.ok(!conversation.isWaiting && !conversation.canMove)
    say('PUNSUBSCRIBE', 'PUNSUBSCRIBE')
    answer(confirmation('punsubscribe', 0), '*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0')
    assert.ok(conversation.canMove)
  })

  it('takes a list for a reply, though it begins as a message does', () => {
    const message = '*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx'
    const { conversation, say, answer } = talk()
    say('LRANGE l 0 -1', 'SUBSCRIBE a', 'UNSUBSCRIBE a', 'LRANGE k 0 -1')
    answer(message, confirmation('subscribe', 1), message, confirmation('unsubscribe', 0))
    assert.ok(conversation.isWaiting)
    answer(confirmation('subscribe', 1))
    assert.ok(conversation.canMove)
    say('HELLO 3', 'SUBSCRIBE a')
    answer('%0', confirmation('subscribe', 1).replace('*', '>'))
    say('LRANGE l 0 -1')
    answer(message.replace('*', '>'))
    assert.ok(conversation.isWaiting)
    answer(message)
    assert.ok(conversation.isAnswered)
  })

  it('is not moved with what commands did that nobody answered', () => {
    for (const quiet of ['CLIENT REPLY OFF', 'CLIENT REPLY SKIP']) {
      for (const command of ['WATCH a', 'SELECT 1', 'MULTI', 'SUBSCRIBE a', 'CLIENT TRACKING on']) {
        const { conversation, say, answer } = talk()
        say(quiet, command)
        if (command !== 'SUBSCRIBE a') {
          say('CLIENT REPLY ON')
          answer('+OK')
        }
        assert.ok(!conversation.canMove, `${quiet}, ${command}`)
      }
    }
  })

  it('knows which commands get no reply, and which end the connection', () => {
    const { conversation, say, answer } = talk()
    say('REPLCONF ACK 1', 'REPLCONF GETACK *')
    assert.ok(!conversation.isWaiting)
    say('REPLCONF capa eof')
    answer('+OK')
    assert.ok(conversation.canMove)
    say('SHUTDOWN NOSAVE x')
    assert.ok(conversation.isQuitting)
    answer('-ERR syntax error')
    assert.ok(conversation.canMove)
    say('PING', 'SET a "b')
    assert.ok(conversation.isQuitting)
  })

  it('ends what each command changes with the reply to that one, those among them that are too long to be looked at', () => {
    const { conversation, say, answer } = talk()
    say(`CLIENT KILL ${'x '.repeat(40)}`, 'SELECT 1', 'SELECT 2')
    const long = `*40\r\n$6\r\nCLIENT\r\n${'$1\r\nx\r\n'.repeat(39)}`.slice(0, -2)
    say(long, 'SELECT 3')
    answer('-ERR syntax error', '+OK', '-ERR DB index is out of range', '-ERR syntax error', '+OK')
    assert.deepEqual(
      conversation.begin().map(({ command }) => command.toString()),
      ['*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n'],
    )
    say('MULTI', 'SELECT 4', 'EXEC')
    answer('+OK', '+QUEUED', '*1\r\n+OK')
    assert.ok(!conversation.canMove)
  })

  it('counts no reply for commands between CLIENT REPLY OFF and ON', () => {
    const { conversation, say, answer } = talk()
    say('CLIENT REPLY OFF', 'SET a 1')
    assert.ok(!conversation.isWaiting && !conversation.canMove)
    say('CLIENT REPLY ON')
    assert.ok(conversation.isWaiting)
    answer('+OK')
    say('CLIENT REPLY SKIP', 'SET a 1', 'GET a')
    answer('$1\r\n1')
    assert.ok(conversation.canMove)
  })

  it('tells that the server is not the one, and of what it refuses of ours alone', () => {
    const { conversation, say, answer } = talk()
    const refusals = [
      "-READONLY You can't write against a read only replica.",
      '-LOADING Redis is loading the dataset in memory',
      "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    ]
    for (const refusal of refusals) {
      say('SET a 1')
      answer(refusal)
      assert.deepEqual(told.splice(0), ['not the one'], refusal)
    }
    say('SET a 1')
    answer('-ERR wrong')
    assert.deepEqual(told, [])
    conversation.expectOurs(false)
    assert.ok(conversation.isWaiting && !conversation.isAsking)
    answer('-WRONGPASS no')
    assert.deepEqual(told, ['ours refused'])
  })
})
