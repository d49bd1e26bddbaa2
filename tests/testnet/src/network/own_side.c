/* Loaded into each tor of a watched network: its TCP and UDP connections come from 127.0.0.2, so that whatever comes from
 * another address is a client's. OutboundBindAddress would not do: tor ignores it for connections to loopback. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <sys/socket.h>

typedef int connect_fn(int, const struct sockaddr *, socklen_t);

int connect(int fd, const struct sockaddr *to, socklen_t length)
{
    connect_fn *next = (connect_fn *)dlsym(RTLD_NEXT, "connect");
    struct sockaddr_in own = {0};
    socklen_t size = sizeof own;
    if (to->sa_family == AF_INET && getsockname(fd, (struct sockaddr *)&own, &size) == 0 && own.sin_port == 0) {
        own.sin_family = AF_INET;
        own.sin_addr.s_addr = inet_addr("127.0.0.2");
        if (bind(fd, (struct sockaddr *)&own, sizeof own) != 0)
            return -1;
    }
    return next(fd, to, length);
}
