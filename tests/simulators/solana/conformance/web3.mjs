// @solana/web3.js 1.x and @solana/spl-token, unmodified, drive a cluster: `node web3.mjs PACKAGES SCENARIO HTTP_URL`.
// Prints what they were told as JSON lines, [name, value]; the Python test beside it judges.
// The WebSocket's address is not given: web3.js takes the port after that of HTTP, as validators have it.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const [, , packages, scenario, url] = process.argv;
const require = createRequire(join(packages, 'package.json'));
const web3 = require('@solana/web3.js');
const spl = require('@solana/spl-token');
const { encode: base58 } = require('bs58');
const { Keypair, PublicKey, SystemProgram, Transaction, TransactionInstruction } = web3;

const connection = new web3.Connection(url, 'confirmed');
const MEMO = new PublicKey('MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr');
const UPGRADEABLE_LOADER = new PublicKey('BPFLoaderUpgradeab1e11111111111111111111111');
const SOL = web3.LAMPORTS_PER_SOL;
const DEADLINE_MS = 20_000;

const say = (name, value) => console.log(JSON.stringify([name, value ?? null], plain));
function plain(_, value) {
    if (typeof value === 'bigint') return value.toString();
    if (value instanceof PublicKey) return value.toBase58();
    return value;
}

const memo = (text, signers = []) =>
    new TransactionInstruction({
        programId: MEMO,
        data: Buffer.from(text),
        keys: signers.map((key) => ({ pubkey: key, isSigner: true, isWritable: false })),
    });
const pay = (from, to, lamports) => SystemProgram.transfer({ fromPubkey: from.publicKey, toPubkey: to, lamports });
const send = (instructions, signers, options) =>
    web3.sendAndConfirmTransaction(connection, new Transaction().add(...instructions), signers, options);

async function funded(sol = 10) {
    const key = Keypair.generate();
    const latest = await connection.getLatestBlockhash();
    const signature = await connection.requestAirdrop(key.publicKey, sol * SOL);
    await connection.confirmTransaction({ signature, ...latest }, 'confirmed');
    return key;
}

async function signed(instructions, signers) {
    const latest = await connection.getLatestBlockhash();
    const transaction = new Transaction({ feePayer: signers[0].publicKey, ...latest }).add(...instructions);
    transaction.sign(...signers);
    return { transaction, latest, wire: transaction.serialize() };
}

async function refusal(promise) {
    try {
        return { accepted: await promise };
    } catch (fault) {
        return { type: fault.constructor.name, message: fault.message, logs: fault.logs, code: fault.code };
    }
}

function until(question, wanted) {
    const started = Date.now();
    return new Promise((resolve, reject) => {
        const ask = async () => {
            const answer = await question();
            if (wanted(answer)) resolve(answer);
            else if (Date.now() - started > DEADLINE_MS) reject(new Error(`still ${JSON.stringify(answer, plain)}`));
            else setTimeout(ask, 20);
        };
        ask().catch(reject);
    });
}

// Money: airdrop, send, confirm, read back, and what is refused.
async function money() {
    say('version', await connection.getVersion());
    say('genesis', await connection.getGenesisHash());
    say('slot', await connection.getSlot());
    say('epoch', await connection.getEpochInfo());
    const payer = await funded();
    const friend = Keypair.generate().publicKey;
    say('airdropped', await connection.getBalance(payer.publicKey));

    const { transaction, latest, wire } = await signed([pay(payer, friend, SOL), memo('one')], [payer]);
    say('fee', (await connection.getFeeForMessage(transaction.compileMessage())).value);
    say('simulated', (await connection.simulateTransaction(transaction)).value);
    const signature = await connection.sendRawTransaction(wire);
    say('signature', signature);
    say('confirmed', (await connection.confirmTransaction({ signature, ...latest })).value);
    say('status', (await connection.getSignatureStatus(signature)).value);
    say('paid', await connection.getBalance(friend));
    say('left', await connection.getBalance(payer.publicKey));

    say('resent', await refusal(connection.sendRawTransaction(wire)));
    say('resent_unchecked', await connection.sendRawTransaction(wire, { skipPreflight: true }));
    say('paid_after_resending', await connection.getBalance(friend));

    const found = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
    say('transaction', { slot: found.slot, version: found.version, meta: found.meta });
    say('transaction_has_block_time', Math.abs(found.blockTime - Date.now() / 1000) < 60);
    const parsed = await connection.getParsedTransaction(signature, { maxSupportedTransactionVersion: 0 });
    say('parsed_transaction', parsed.transaction.message);
    const block = await connection.getBlock(found.slot, { maxSupportedTransactionVersion: 0 });
    say('block', {
        parentSlot: block.parentSlot,
        holds: block.transactions.some((each) => each.transaction.signatures[0] === signature),
    });
    say('blocks', (await connection.getBlocks(found.slot, found.slot)).includes(found.slot));
    say('block_time', (await connection.getBlockTime(found.slot)) === block.blockTime);

    const parsedBlock = await connection.getParsedBlock(found.slot, { maxSupportedTransactionVersion: 0 });
    say(
        'parsed_block',
        parsedBlock.transactions.some((each) =>
            each.transaction.message.instructions.some((one) => one.parsed === 'one'),
        ),
    );
    say('block_signatures', (await connection.getBlockSignatures(found.slot)).signatures.includes(signature));
    say('others', {
        count: (await connection.getTransactionCount()) > 0,
        first: (await connection.getFirstAvailableBlock()) <= found.slot,
        oldest: (await connection.getMinimumLedgerSlot()) <= found.slot,
        leader: (await connection.getClusterNodes())
            .map((each) => each.pubkey)
            .includes(await connection.getSlotLeader()),
        schedule: (await connection.getEpochSchedule()).slotsPerEpoch,
        prices: Array.isArray(await connection.getRecentPrioritizationFees()),
    });

    for (const text of ['two', 'three', 'four']) await send([memo(text, [payer.publicKey])], [payer]);
    const all = await connection.getSignaturesForAddress(payer.publicKey);
    say(
        'history',
        all.map((each) => each.memo),
    );
    const pages = [];
    for (let before; ;) {
        const page = await connection.getSignaturesForAddress(payer.publicKey, { limit: 2, before });
        if (page.length === 0) break;
        pages.push(page.length);
        before = page.at(-1).signature;
    }
    say('pages', pages);
    const since = await connection.getSignaturesForAddress(payer.publicKey, { until: signature });
    say(
        'since',
        since.map((each) => each.memo),
    );

    const accounts = await connection.getMultipleAccountsInfo([friend, Keypair.generate().publicKey]);
    say(
        'accounts',
        accounts.map((each) => each && { lamports: each.lamports, owner: each.owner, bytes: each.data.length }),
    );
    say('rent', await connection.getMinimumBalanceForRentExemption(165));
    say('blockhash_valid', (await connection.isBlockhashValid(latest.blockhash)).value);

    const poor = await refusal(send([pay(payer, friend, 1000 * SOL)], [payer]));
    say('too_much', poor);
    const simulated = new web3.VersionedTransaction(
        new web3.TransactionMessage({
            payerKey: payer.publicKey,
            recentBlockhash: PublicKey.default.toBase58(),
            instructions: [pay(payer, friend, SOL)],
        }).compileToV0Message(),
    );
    const options = {
        sigVerify: false,
        replaceRecentBlockhash: true,
        accounts: { encoding: 'base64', addresses: [friend.toBase58()] },
    };
    say('simulated_unsigned', (await connection.simulateTransaction(simulated, options)).value);
    say('paid_after_simulating', await connection.getBalance(friend));

    const limit = web3.ComputeBudgetProgram.setComputeUnitLimit({ units: 400 });
    say('too_long', await refusal(send([limit, memo('x'.repeat(500))], [payer])));
    const price = web3.ComputeBudgetProgram.setComputeUnitPrice({ microLamports: 1_000_000 });
    const units = web3.ComputeBudgetProgram.setComputeUnitLimit({ units: 50_000 });
    const priced = await send([units, price, memo('urgent')], [payer]);
    say('priced_fee', (await connection.getTransaction(priced, { maxSupportedTransactionVersion: 0 })).meta.fee);
    const stranger = new Transaction({ feePayer: payer.publicKey, ...latest }).add(pay(payer, friend, 1));
    stranger.sign(payer);
    stranger.signatures[0].signature.fill(1);
    say('forged', await refusal(connection.sendRawTransaction(stranger.serialize({ verifySignatures: false }))));
    say('too_big', await refusal(connection.sendEncodedTransaction(Buffer.alloc(1300, 1).toString('base64'))));
}

// Tokens: a Token-2022 mint with extensions and its metadata, accounts, balances, and SPL Token beside it.
async function tokens() {
    const payer = await funded();
    const holder = Keypair.generate();
    const mint = Keypair.generate();
    const program = spl.TOKEN_2022_PROGRAM_ID;
    const extensions = [
        spl.ExtensionType.DefaultAccountState,
        spl.ExtensionType.PermanentDelegate,
        spl.ExtensionType.MetadataPointer,
        spl.ExtensionType.MintCloseAuthority,
    ];
    const space = spl.getMintLen(extensions);
    const owner = payer.publicKey;
    await send(
        [
            SystemProgram.createAccount({
                fromPubkey: owner,
                newAccountPubkey: mint.publicKey,
                space,
                lamports: await connection.getMinimumBalanceForRentExemption(space + 400),
                programId: program,
            }),
            spl.createInitializeDefaultAccountStateInstruction(mint.publicKey, spl.AccountState.Frozen, program),
            spl.createInitializePermanentDelegateInstruction(mint.publicKey, owner, program),
            spl.createInitializeMetadataPointerInstruction(mint.publicKey, owner, mint.publicKey, program),
            spl.createInitializeMintCloseAuthorityInstruction(mint.publicKey, owner, program),
            spl.createInitializeMint2Instruction(mint.publicKey, 9, owner, owner, program),
        ],
        [payer, mint],
    );
    const name = ['GRID of a test', 'GRID', 'about:blank'];
    await spl.tokenMetadataInitialize(connection, payer, mint.publicKey, owner, payer, ...name, [], undefined, program);
    const key = ['unit', '1 kWh'];
    await spl.tokenMetadataUpdateField(connection, payer, mint.publicKey, payer, ...key, [], undefined, program);
    say('metadata', await spl.getTokenMetadata(connection, mint.publicKey, 'confirmed', program));
    const made = await spl.getMint(connection, mint.publicKey, 'confirmed', program);
    say('mint', { decimals: made.decimals, supply: made.supply, freezer: made.freezeAuthority.equals(owner) });
    say(
        'mint_extensions',
        spl.getExtensionTypes(made.tlvData).map((each) => spl.ExtensionType[each]),
    );
    say('parsed_mint', (await connection.getParsedAccountInfo(mint.publicKey)).value.data);
    say('payer', owner);
    say('mint_address', mint.publicKey);

    const account = await spl.createAssociatedTokenAccount(
        connection,
        payer,
        mint.publicKey,
        holder.publicKey,
        {},
        program,
    );
    say('born_frozen', (await spl.getAccount(connection, account, 'confirmed', program)).isFrozen);
    const frozen = spl.mintTo(connection, payer, mint.publicKey, account, payer, 11_000_000_000n, [], {}, program);
    say('frozen', await refusal(frozen));
    await spl.thawAccount(connection, payer, account, mint.publicKey, payer, [], {}, program);
    const minted = await spl.mintTo(
        connection,
        payer,
        mint.publicKey,
        account,
        payer,
        11_500_000_000n,
        [],
        {},
        program,
    );
    say('balance', (await connection.getTokenAccountBalance(account)).value);
    say('supply', (await connection.getTokenSupply(mint.publicKey)).value);
    say(
        'largest',
        (await connection.getTokenLargestAccounts(mint.publicKey)).value.map((each) => [
            each.address.equals(account),
            each.amount,
        ]),
    );
    const mine = await connection.getParsedTokenAccountsByOwner(holder.publicKey, { programId: program });
    say(
        'parsed_accounts',
        mine.value.map((each) => each.account.data),
    );
    say('holder', holder.publicKey);
    const byMint = await connection.getTokenAccountsByOwner(holder.publicKey, { mint: mint.publicKey });
    say(
        'accounts_by_mint',
        byMint.value.map((each) => each.pubkey.equals(account)),
    );
    const found = await connection.getParsedTransaction(minted, { maxSupportedTransactionVersion: 0 });
    say(
        'minting',
        found.transaction.message.instructions.map((each) => each.parsed),
    );
    say('account', account);
    say('token_balances', [found.meta.preTokenBalances, found.meta.postTokenBalances]);

    const old = await spl.createMint(connection, payer, owner, null, 6);
    const wallets = [Keypair.generate().publicKey, Keypair.generate().publicKey];
    const [from, to] = await Promise.all(
        wallets.map((wallet) =>
            spl.getOrCreateAssociatedTokenAccount(connection, payer, old, wallet).then((each) => each.address),
        ),
    );
    await spl.mintTo(connection, payer, old, from, payer, 1_234_567n);
    say('old_balance', (await connection.getTokenAccountBalance(from)).value);
    const holds = (wallet) => ({ memcmp: { offset: 32, bytes: wallet.toBase58() } });
    const some = await connection.getProgramAccounts(spl.TOKEN_PROGRAM_ID, {
        filters: [{ dataSize: 165 }, { memcmp: { offset: 0, bytes: old.toBase58() } }],
        dataSlice: { offset: 64, length: 8 },
    });
    say('filtered', some.map((each) => each.account.data.readBigUInt64LE()).sort());
    const one = await connection.getParsedProgramAccounts(spl.TOKEN_PROGRAM_ID, { filters: [holds(wallets[1])] });
    say(
        'filtered_one',
        one.map((each) => [each.pubkey.equals(to), each.account.data.parsed.info.tokenAmount.amount]),
    );
}

// Subscriptions: each kind, what it says, and silence after it is given up.
async function subscriptions() {
    const payer = await funded();
    const friend = Keypair.generate().publicKey;
    const other = Keypair.generate().publicKey;
    const heard = {
        account: [],
        finalized: [],
        program: [],
        logs: [],
        mentioned: [],
        slots: [],
        roots: [],
        updates: new Set(),
        given_up: 0,
    };
    const space = 100;
    const base = payer.publicKey;
    const owned = await PublicKey.createWithSeed(base, 'owned', MEMO);
    const wider = await PublicKey.createWithSeed(base, 'wider', MEMO);
    const made = (address, seed, bytes) =>
        SystemProgram.createAccountWithSeed({
            fromPubkey: base,
            basePubkey: base,
            seed,
            newAccountPubkey: address,
            space: bytes,
            lamports: SOL / 100,
            programId: MEMO,
        });

    const ids = [
        connection.onAccountChange(
            friend,
            (account, context) => heard.account.push([account.lamports, context.slot]),
            'processed',
        ),
        connection.onAccountChange(friend, (account) => heard.finalized.push(account.lamports), {
            commitment: 'finalized',
        }),
        connection.onProgramAccountChange(
            MEMO,
            ({ accountId, accountInfo }) => heard.program.push([accountId, accountInfo.data.length]),
            {
                commitment: 'confirmed',
                filters: [{ dataSize: space }],
            },
        ),
    ];
    const logs = [
        connection.onLogs('all', (each) => heard.logs.push(each.signature), 'confirmed'),
        connection.onLogs(other, (each) => heard.mentioned.push(each), 'confirmed'),
    ];
    const slots = connection.onSlotChange((each) => heard.slots.push(each));
    const roots = connection.onRootChange((each) => heard.roots.push(each));
    const updates = connection.onSlotUpdate((each) => heard.updates.add(each.type));
    const gone = connection.onAccountChange(
        friend,
        () => {
            heard.given_up += 1;
        },
        'processed',
    );
    await until(
        () => heard.slots.length,
        (count) => count > 2,
    ); // all were taken: they were asked for before
    await connection.removeAccountChangeListener(gone);
    await new Promise((resolve) => setTimeout(resolve, 100));

    const first = await send([pay(payer, friend, SOL), memo('hello')], [payer]);
    await send([made(owned, 'owned', space), made(wider, 'wider', space + 1)], [payer]);
    const second = await send([pay(payer, friend, SOL), pay(payer, other, SOL)], [payer]);
    const { transaction, wire } = await signed([pay(payer, friend, SOL)], [payer]);
    const name = base58(transaction.signature);
    const told = new Promise((resolve) =>
        connection.onSignature(name, (result, context) => resolve([result, context.slot]), 'processed'),
    );
    const received = new Promise((resolve) =>
        // web3.js hears only the first notice, whichever it is
        connection.onSignatureWithOptions(name, (notice) => resolve(notice.type), {
            commitment: 'finalized',
            enableReceivedNotification: true,
        }),
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
    await connection.sendRawTransaction(wire);
    say('signature', (await told)[0]);
    say('received', await received);
    say('already_processed', await new Promise((resolve) => connection.onSignature(first, resolve, 'confirmed')));
    await until(
        () => heard.finalized.at(-1),
        (lamports) => lamports === 3 * SOL,
    );
    await until(
        () => heard.logs.includes(second) && heard.roots.length,
        (count) => count > 2,
    );
    say(
        'account',
        heard.account.map(([lamports]) => lamports),
    );
    say(
        'account_slots_rise',
        heard.account.every(([, slot], number) => number === 0 || slot >= heard.account[number - 1][1]),
    );
    say('finalized', heard.finalized.at(-1));
    say(
        'program',
        heard.program.map(([address, bytes]) => [new PublicKey(address).equals(owned), bytes]),
    );
    say(
        'logs_of_all',
        [first, second, name].map((each) => heard.logs.includes(each)),
    );
    say(
        'mentioned',
        heard.mentioned.map((each) => [each.signature === second, each.err, each.logs.length]),
    );
    say(
        'slots',
        heard.slots.slice(0, 3).map((each) => each.slot - each.parent),
    );
    say(
        'slot_after_root',
        heard.slots.every((each) => each.root < each.slot),
    );
    say(
        'roots_rise',
        heard.roots.every((each, number) => number === 0 || each > heard.roots[number - 1]),
    );
    say('updates', [...heard.updates].sort());
    say('given_up', heard.given_up);
    for (const id of ids.slice(0, 2)) await connection.removeAccountChangeListener(id);
    await connection.removeProgramAccountChangeListener(ids[2]);
    for (const id of logs) await connection.removeOnLogsListener(id);
    await connection.removeSlotChangeListener(slots);
    await connection.removeRootChangeListener(roots);
    await connection.removeSlotUpdateListener(updates);
}

// A lookup table made, extended and used; a durable nonce that outlives its blockhash, and advances when its use fails.
async function tables_and_nonces() {
    const payer = await funded();
    const many = Array.from({ length: 20 }, () => Keypair.generate().publicKey);
    const recentSlot = await connection.getSlot('finalized');
    const [create, table] = web3.AddressLookupTableProgram.createLookupTable({
        authority: payer.publicKey,
        payer: payer.publicKey,
        recentSlot,
    });
    await send([create], [payer]);
    const extend = web3.AddressLookupTableProgram.extendLookupTable({
        lookupTable: table,
        authority: payer.publicKey,
        payer: payer.publicKey,
        addresses: many,
    });
    const extended = await send([extend], [payer]);
    const { slot } = (await connection.getSignatureStatus(extended)).value;
    await until(
        () => connection.getSlot('confirmed'),
        (now) => now > slot,
    );
    const found = (await connection.getAddressLookupTable(table)).value;
    say('table', {
        addresses: found.state.addresses.length,
        active: found.isActive(),
        authority: found.state.authority.equals(payer.publicKey),
    });
    say('table_extended_in', found.state.lastExtendedSlot === slot);
    say('parsed_table', (await connection.getParsedAccountInfo(table)).value.data.parsed.info.addresses.length);
    const latest = await connection.getLatestBlockhash();
    const instructions = many.map((each) => pay(payer, each, SOL / 100));
    const message = new web3.TransactionMessage({
        payerKey: payer.publicKey,
        recentBlockhash: latest.blockhash,
        instructions,
    });
    const transaction = new web3.VersionedTransaction(message.compileToV0Message([found]));
    transaction.sign([payer]);
    say('v0_bytes', transaction.serialize().length);
    const signature = await connection.sendTransaction(transaction);
    say('v0', (await connection.confirmTransaction({ signature, ...latest })).value);
    say(
        'v0_paid',
        (await connection.getMultipleAccountsInfo(many)).every((each) => each.lamports === SOL / 100),
    );
    const unsupported = connection.getTransaction(signature);
    say('v0_not_understood', await refusal(unsupported));
    const v0 = await connection.getTransaction(signature, { maxSupportedTransactionVersion: 0 });
    say('v0_loaded', [v0.version, v0.meta.loadedAddresses.writable.length, v0.meta.loadedAddresses.readonly.length]);
    const parsed = await connection.getParsedTransaction(signature, { maxSupportedTransactionVersion: 0 });
    say('v0_sources', parsed.transaction.message.accountKeys.filter((each) => each.source === 'lookupTable').length);
    say(
        'mentioned_by_table',
        (await connection.getSignaturesForAddress(many[7])).map((each) => each.signature === signature),
    );

    const nonce = Keypair.generate();
    await send(
        SystemProgram.createNonceAccount({
            fromPubkey: payer.publicKey,
            noncePubkey: nonce.publicKey,
            authorizedPubkey: payer.publicKey,
            lamports: await connection.getMinimumBalanceForRentExemption(web3.NONCE_ACCOUNT_LENGTH),
        }).instructions,
        [payer, nonce],
    );
    const read = async () => (await connection.getNonce(nonce.publicKey)).nonce;
    const durable = async (...instructions) => {
        const value = await read();
        const advance = SystemProgram.nonceAdvance({ noncePubkey: nonce.publicKey, authorizedPubkey: payer.publicKey });
        const transaction = new Transaction({
            feePayer: payer.publicKey,
            minContextSlot: await connection.getSlot(),
            nonceInfo: { nonce: value, nonceInstruction: advance },
        }).add(...instructions);
        transaction.sign(payer);
        return { transaction, value };
    };
    const born = await read();
    const slotBorn = await connection.getSlot('processed');
    await until(
        () => connection.getSlot('confirmed'),
        (now) => now > slotBorn + 1,
    );
    const friend = Keypair.generate().publicKey;
    const kept = await durable(pay(payer, friend, SOL));
    const used = await web3.sendAndConfirmTransaction(connection, kept.transaction, [payer]);
    say('nonce_used', [(await connection.getBalance(friend)) === SOL, kept.value === born, (await read()) !== born]);
    say(
        'nonce_parsed',
        (await connection.getParsedAccountInfo(nonce.publicKey)).value.data.parsed.info.authority ===
            payer.publicKey.toBase58(),
    );
    say('nonce_used_twice', await refusal(connection.sendRawTransaction(kept.transaction.serialize())));
    const slotUsed = (await connection.getSignatureStatus(used)).value.slot;
    await until(
        () => connection.getSlot('confirmed'),
        (now) => now > slotUsed + 1,
    );
    const failing = await durable(pay(payer, friend, 1000 * SOL));
    const failed = await connection.sendRawTransaction(failing.transaction.serialize(), { skipPreflight: true });
    const status = await until(
        () => connection.getSignatureStatus(failed),
        (each) => each.value !== null && each.value.confirmationStatus !== 'processed',
    );
    say('nonce_failed', status.value.err);
    say('nonce_advanced_by_failure', (await read()) !== failing.value);
}

// A program put on the chain through the upgradeable loader: the cluster's own memo program, under another address.
async function programs() {
    const payer = await funded(100);
    const elf = Buffer.from((await connection.getAccountInfo(MEMO)).data);
    const buffer = Keypair.generate();
    const program = Keypair.generate();
    const [programData] = PublicKey.findProgramAddressSync([program.publicKey.toBytes()], UPGRADEABLE_LOADER);
    const account = (pubkey, isWritable, isSigner = false) => ({ pubkey, isSigner, isWritable });
    const load = (keys, ...data) =>
        new TransactionInstruction({ programId: UPGRADEABLE_LOADER, keys, data: Buffer.concat(data) });
    const number = (value, bytes = 4) => {
        const data = Buffer.alloc(bytes);
        data.writeUIntLE(value, 0, Math.min(bytes, 6));
        return data;
    };
    const created = async (key, space) =>
        SystemProgram.createAccount({
            fromPubkey: payer.publicKey,
            newAccountPubkey: key.publicKey,
            space,
            programId: UPGRADEABLE_LOADER,
            lamports: await connection.getMinimumBalanceForRentExemption(space),
        });
    const authority = account(payer.publicKey, false, true);
    await send(
        [
            await created(buffer, elf.length + 37),
            load([account(buffer.publicKey, true), account(payer.publicKey, false)], number(0)),
        ],
        [payer, buffer],
    );
    const writes = [];
    for (let offset = 0; offset < elf.length; offset += 900) {
        const part = elf.subarray(offset, offset + 900);
        writes.push(
            load([account(buffer.publicKey, true), authority], number(1), number(offset), number(part.length, 8), part),
        );
    }
    const latest = await connection.getLatestBlockhash();
    const sent = await Promise.all(
        writes.map((each) => {
            const transaction = new Transaction({ feePayer: payer.publicKey, ...latest }).add(each);
            transaction.sign(payer);
            return connection.sendRawTransaction(transaction.serialize(), { skipPreflight: true });
        }),
    );
    const statuses = await until(
        async () => (await connection.getSignatureStatuses(sent)).value,
        (all) => all.every((each) => each !== null && each.confirmationStatus !== 'processed'),
    );
    say('writes', [sent.length > 1, statuses.every((each) => each.err === null)]);
    const written = (await connection.getParsedAccountInfo(buffer.publicKey)).value.data.parsed;
    say('buffer', [written.type, Buffer.from(written.info.data[0], 'base64').equals(elf)]);
    const deploy = load(
        [
            account(payer.publicKey, true, true),
            account(programData, true),
            account(program.publicKey, true),
            account(buffer.publicKey, true),
            account(web3.SYSVAR_RENT_PUBKEY, false),
            account(web3.SYSVAR_CLOCK_PUBKEY, false),
            account(SystemProgram.programId, false),
            authority,
        ],
        number(2),
        number(elf.length, 8),
    );
    const deployed = await send([await created(program, 36), deploy], [payer, program]);
    const { slot } = (await connection.getSignatureStatus(deployed)).value;
    const info = (await connection.getParsedAccountInfo(program.publicKey)).value;
    say('program', [info.executable, info.data.parsed.info.programData === programData.toBase58()]);
    say('program_data', (await connection.getParsedAccountInfo(programData)).value.data.parsed.info.slot === slot);
    await until(
        () => connection.getSlot('confirmed'),
        (now) => now > slot,
    );
    const call = new TransactionInstruction({
        programId: program.publicKey,
        data: Buffer.from('by our own'),
        keys: [],
    });
    const called = await send([call], [payer]);
    const logs = (await connection.getTransaction(called, { maxSupportedTransactionVersion: 0 })).meta.logMessages;
    say(
        'logs',
        logs.map((each) => each.replace(program.publicKey.toBase58(), 'OURS')),
    );
}

// A transaction that no block took: its blockhash lapses, and only then it is said to have expired.
async function expiry() {
    const payer = await funded();
    const { latest, transaction, wire } = await signed([memo('too late')], [payer]);
    const signature = base58(transaction.signature);
    const lost = await refusal(connection.confirmTransaction({ signature, ...latest }, 'confirmed'));
    say('lost', lost);
    say('height_passed', (await connection.getBlockHeight('confirmed')) > latest.lastValidBlockHeight);
    say('sent_too_late', await refusal(connection.sendRawTransaction(wire)));
    say('sent_too_late_unchecked', (await connection.sendRawTransaction(wire, { skipPreflight: true })) === signature);
    say('landed', (await connection.getSignatureStatus(signature, { searchTransactionHistory: true })).value);
    say('blockhash_valid', (await connection.isBlockhashValid(latest.blockhash)).value);
}

const scenarios = { money, tokens, subscriptions, tables_and_nonces, programs, expiry };
await scenarios[scenario]();
process.exit(0);
