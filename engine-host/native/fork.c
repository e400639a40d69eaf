// What makes a Node process a template that others are forked from.
//
// It is preloaded into Node (LD_PRELOAD), where it takes the place of one function of the C library, `getpriority`.
// Asked for the priority of a process of a number that no process can have, that function does one of two things (see
// `getpriority` below). JavaScript reaches it by `os.getPriority`, for which nobody has to be allowed native code: neither
// the template nor, for that reason, those that are forked from it.
//
// Serving, it blocks for as long as the template lives: no JavaScript runs there any more, and nothing of its heap is
// moved or collected. A request comes over a socket, with descriptors; the process forks, and the call returns in the
// child only.
//
// It is linked with no library: what it calls is in the C library that Node itself brings along, and in Node.
//
// A child differs from what `fork` makes of any process in five ways, without each of which it crashes or hangs:
//  * V8 has the kernel leave its memory out of children (MADV_DONTFORK): that is undone beforehand.
//  * The event loop gets a polling descriptor of its own (uv_loop_fork).
//  * Threads of V8 that are not there any more are never waited for: the process ends by `_exit` and in no other way.
//  * It is made by a process between (vfork, then fork), so that it belongs to the nearest process that adopts orphans,
//    which gets its real status and for whom it is no matter whether the template lives. By the C library's own `fork`,
//    since libuv's thread pool begins anew in its handlers.
//  * It waits for a word that it was adopted, and ends where that does not come.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Of libuv, which Node brings along.
typedef struct uv_loop_s uv_loop_t;
extern uv_loop_t *uv_default_loop(void);
extern int uv_loop_fork(uv_loop_t *);
extern void uv_update_time(uv_loop_t *);

// Descriptors of the template, and of the child, by the host's choice.
enum { COMMANDS = 3, REPLIES = 4, CONTROL = 5, LISTENER = 6 };

// A request, as `engine/node/template/request.rs` writes it: this, and a filter of system calls. Whoever sends it has the
// template's token, and with that nothing less than the right to fork it.
enum { TOKEN_BYTES = 64, LIMITS = 3, MOST_FILTER = 64, DESCRIPTORS = 4 };
struct request {
  char token[TOKEN_BYTES];
  // The process that is to adopt the child.
  uint32_t parent;
  uint32_t instructions;
  // Stands in the filter for the child's own number.
  uint32_t own_number;
  uint32_t reserved;
  // Of open files, processes, and bytes of a file.
  uint64_t limits[LIMITS];
};
struct answer {
  int32_t pid;
  int32_t error;
  uint64_t nanoseconds;
};
static const int LIMITED[LIMITS] = {RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_FSIZE};

// How long a client may take to say what it wants, and to have the child adopted.
enum { PATIENCE_MS = 200, ADOPTION_MS = 5000 };

static char token[TOKEN_BYTES];
static char message[sizeof(struct request) + MOST_FILTER * sizeof(struct sock_filter)];
static int is_child;

// Has the kernel give children what V8 wants kept from them: each mapping that is marked so ("dc"), but for memory of
// devices ("io", "pf"). Returns -1 where the kernel does not tell.
static int make_forkable(void) {
  enum { MOST = 8192 };
  static struct { uintptr_t from, to; } found[MOST];
  static char text[65536];
  int count = 0, fd = open("/proc/self/smaps", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  uintptr_t from = 0, to = 0;
  size_t have = 0;
  for (;;) {
    ssize_t more = read(fd, text + have, sizeof text - 1 - have);
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) { close(fd); return -1; }
    have += (size_t)more;
    text[have] = 0;
    char *line = text, *end;
    while ((end = strchr(line, '\n')) != NULL) {
      *end = 0;
      char *rest;
      uintptr_t first = strtoul(line, &rest, 16);
      if (rest != line && *rest == '-') {
        char *after;
        uintptr_t second = strtoul(rest + 1, &after, 16);
        if (*after == ' ') { from = first; to = second; }
      }
      int is_kept = strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dc") != NULL;
      if (is_kept && strstr(line, " io") == NULL && strstr(line, " pf") == NULL) {
        if (count == MOST) { close(fd); return -1; }
        found[count].from = from;
        found[count].to = to;
        count += 1;
      }
      line = end + 1;
    }
    have = strlen(line);
    memmove(text, line, have);
    if (more == 0) break;
  }
  close(fd);
  // Not while the list is read, which this changes.
  for (int i = 0; i < count; i++)
    if (madvise((void *)found[i].from, found[i].to - found[i].from, MADV_DOFORK) != 0) return -1;
  return count;
}

static uint64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void close_all(const int *fds, int count) {
  for (int i = 0; i < count; i++) close(fds[i]);
}

// Takes one message with its descriptors. Returns its length, or -1 if none comes in time or it makes no sense.
static ssize_t take(int client, int *fds, int *count) {
  struct pollfd readable = {client, POLLIN, 0};
  *count = 0;
  if (poll(&readable, 1, PATIENCE_MS) != 1) return -1;
  union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int) * DESCRIPTORS)]; } control;
  struct iovec part = {message, sizeof message};
  struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t length = recvmsg(client, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0) return -1;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(&header); part != NULL; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    int more = (int)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(fds + *count, CMSG_DATA(part), (size_t)more * sizeof(int));
    *count += more;
  }
  return header.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? -1 : length;
}

// Whether a message is a request of somebody who may make one.
static int is_request(ssize_t length, int count) {
  const struct request *request = (const void *)message;
  if (length < (ssize_t)sizeof *request || count != DESCRIPTORS) return 0;
  // In a time that does not tell how much of the token is right.
  unsigned char difference = 0;
  for (int i = 0; i < TOKEN_BYTES; i++) difference |= (unsigned char)(request->token[i] ^ token[i]);
  if (difference != 0 || request->instructions > MOST_FILTER) return 0;
  return (size_t)length == sizeof *request + request->instructions * sizeof(struct sock_filter);
}

static void reply(int client, pid_t pid, int error, uint64_t nanoseconds) {
  struct answer answer = {pid, error, nanoseconds};
  int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
  union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control;
  memset(&control, 0, sizeof control);
  struct iovec part = {&answer, sizeof answer};
  struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
  if (pidfd >= 0) {
    header.msg_control = &control;
    header.msg_controllen = sizeof control;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof pidfd);
    memcpy(CMSG_DATA(rights), &pidfd, sizeof pidfd);
  }
  // Who does not take it has gone, and its child ends for want of adoption.
  sendmsg(client, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (pidfd >= 0) close(pidfd);
}

// Forks, and hands the child to the nearest process that adopts orphans. Returns 0 in the child, else its number, or
// -1 with `errno`.
static pid_t fork_away(void) {
  // The one between shares this memory, and is gone before this goes on.
  volatile pid_t child = -1, number = 0;
  volatile int error = 0;
  pid_t between = vfork();
  if (between == 0) {
    number = getpid();
    pid_t made = fork();
    if (made != 0) {
      child = made;
      error = errno;
      _exit(0);
    }
    // What is set for the death of the parent holds for the one of now.
    pid_t first = number;
    while (getppid() == first) sched_yield();
    return 0;
  }
  if (between < 0) return -1;
  while (waitpid(between, NULL, 0) < 0 && errno == EINTR) {}
  if (child < 0) errno = error;
  return child;
}

// What a child does to itself before any JavaScript runs in it. It ends where one of it fails: nothing was begun.
static void settle(int client, int *fds, uv_loop_t *loop) {
  struct request *request = (void *)message;
  is_child = 1;
  explicit_bzero(token, sizeof token);
  explicit_bzero(request->token, sizeof request->token);
  close(CONTROL);
  close(LISTENER);
  // Until it was adopted it is in the template's session, by which the worker knows whose it is.
  struct pollfd adopted = {client, POLLIN, 0};
  char word;
  if (poll(&adopted, 1, ADOPTION_MS) != 1 || recv(client, &word, 1, 0) != 1) _exit(70);
  close(client);
  if (setsid() < 0) _exit(71);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if ((uint32_t)getppid() != request->parent) _exit(72);
  for (int i = 0; i < LIMITS; i++) {
    struct rlimit limit = {request->limits[i], request->limits[i]};
    if (setrlimit(LIMITED[i], &limit) != 0) _exit(73);
  }
  // They are none of 3 and 4, which the template has open.
  if (dup2(fds[0], COMMANDS) < 0 || dup2(fds[1], REPLIES) < 0 || dup2(fds[2], 1) < 0 || dup2(fds[2], 2) < 0) _exit(74);
  if (uv_loop_fork(loop) != 0) _exit(75);
  uv_update_time(loop);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(76);
  if (syscall(SYS_landlock_restrict_self, fds[3], 0) != 0) _exit(77);
  close_all(fds, DESCRIPTORS);
  struct sock_filter *filter = (void *)(message + sizeof *request);
  for (uint32_t i = 0; i < request->instructions; i++)
    if (filter[i].k == request->own_number) filter[i].k = (uint32_t)getpid();
  struct sock_fprog program = {(unsigned short)request->instructions, filter};
  if (request->instructions > 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(78);
}

// Whether no threads are left but those of V8 that a child does without: its own one for what is put off, its one worker,
// and the main thread. At first there may be others, as one that reads certificates.
static int is_alone(void) {
  enum { MOST_THREADS = 3, LOOKS = 500, BETWEEN_NS = 20000000 };
  for (int look = 0; look < LOOKS; look++) {
    DIR *folder = opendir("/proc/self/task");
    if (folder == NULL) return 0;
    int count = 0;
    struct dirent *entry;
    while ((entry = readdir(folder)) != NULL) count += entry->d_name[0] != '.';
    closedir(folder);
    if (count <= MOST_THREADS) return 1;
    struct timespec pause = {0, BETWEEN_NS};
    nanosleep(&pause, NULL);
  }
  return 0;
}

// Gives memory back that is free, and takes what of it is left in pieces between others: each child would copy a page for each
// of them that it uses. What it allocates comes from the heap's end now, one after the other.
static void gather_memory(void) {
  enum { BEYOND = 16 << 20, MOST = 64 << 20, LARGEST = 64 << 10, LARGE = 1024, LEAST = 24, STEP = 16, MAPPED_FROM = 128 << 10 };
  size_t taken = 0;
  malloc_trim(0);
  mallopt(M_MMAP_THRESHOLD, 2 * BEYOND);
  char *end = malloc(BEYOND);
  free(end);
  for (size_t size = LARGEST; end != NULL && size >= LEAST; size = size > LARGE ? size / 2 : size - STEP) {
    char *piece;
    while ((piece = malloc(size)) != NULL && piece < end && taken < MOST) taken += size;
    free(piece);
  }
  mallopt(M_MMAP_THRESHOLD, MAPPED_FROM);
}

// Returns 0 in each child. In the template it ends the process, or returns an error's number.
static int serve(void) {
  uv_loop_t *loop = uv_default_loop();
  for (size_t have = 0; have < sizeof token;) {
    ssize_t more = read(CONTROL, token + have, sizeof token - have);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) _exit(0);
    have += (size_t)more;
  }
  if (!is_alone()) return EBUSY;
  gather_memory();
  if (make_forkable() < 0) return ENOTSUP;
  // It is ready.
  if (write(CONTROL, "y", 1) != 1) _exit(0);
  for (;;) {
    struct pollfd events[2] = {{LISTENER, POLLIN, 0}, {CONTROL, POLLIN, 0}};
    if (poll(events, 2, -1) < 0) {
      if (errno == EINTR) continue;
      _exit(80);
    }
    // The host is gone, or wants it to end.
    if (events[1].revents != 0) _exit(0);
    int client = accept4(LISTENER, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) continue;
    int fds[DESCRIPTORS], count;
    ssize_t length = take(client, fds, &count);
    if (!is_request(length, count)) {
      close_all(fds, count);
      close(client);
      continue;
    }
    uint64_t begun = now();
    pid_t child = fork_away();
    if (child == 0) {
      settle(client, fds, loop);
      return 0;
    }
    reply(client, child, child < 0 ? errno : 0, now() - begun);
    close_all(fds, count);
    close(client);
  }
}

// More than any process's number can be: the first has the template serve, the others have the process end with the code
// that follows, and take down nothing.
enum { SERVE = 0x4f460000, EXIT = 0x4f470000, MOST_EXIT = 255 };

__attribute__((visibility("default"))) int getpriority(__priority_which_t which, id_t who) {
  if (which == PRIO_PROCESS && who >= EXIT && who <= EXIT + MOST_EXIT) _exit((int)(who - EXIT));
  if (which == PRIO_PROCESS && who == SERVE && !is_child) {
    int error = serve();
    if (error == 0) return 0;
    errno = error;
    return -1;
  }
  // The kernel has it the other way round, so that it is never negative.
  long priority = syscall(SYS_getpriority, which, who);
  return priority < 0 ? (int)priority : 20 - (int)priority;
}

// Nothing that is started from here is to get this, too.
__attribute__((constructor)) static void attach(void) { unsetenv("LD_PRELOAD"); }
